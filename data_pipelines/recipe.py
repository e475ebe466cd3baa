"""What decides the content of a data set, and how that is shared out over splits."""

import dataclasses
import hashlib
import itertools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every field that decides the content of a data set, and nothing else."""

    dataset: str
    height: int  # of a frame, in pixels
    width: int
    num_frames: int  # over all splits; rounded up to whole clips; 0 where the source decides
    clip_length: int  # frames per record
    seed: int
    variant: Mapping[str, Any]  # numbers and words: the fields of this data set only
    source: str = ""  # the folder that is read; empty where the data are generated

    @property
    def num_clips(self) -> int:
        return math.ceil(self.num_frames / self.clip_length)

    @property
    def label(self) -> str:
        """Names the folder; recipes that differ have labels that differ."""
        fields = [
            value if isinstance(value, str) else f"{key}{value}".removesuffix(".0")
            for key, value in self.variant.items()
        ]
        size = str(self.width) if self.height == self.width else f"{self.width}x{self.height}"
        parts = [*fields, f"{size}px", f"clips{self.clip_length}"]
        if self.source:  # by name, for people, and by the whole path
            return _as_folder_name("-".join([Path(self.source).name, _digest(self.source), *parts]))
        parts[-1:-1] = [f"{self.num_frames}frames"]
        return _as_folder_name("-".join([*parts, f"seed{self.seed}"]))


def make_recipe(data: Any, variant: Mapping[str, Any], source: str = "") -> Recipe:
    """The recipe of the `data` node of a configuration.

    Args:
      data: the node.
      variant: what its data set adds (`Definition.variant`).
      source: the folder that is read, if one is.
    """
    height, width = data.frame_size
    return Recipe(
        dataset=data.name,
        height=height,
        width=width,
        num_frames=0 if source else data.num_frames,
        clip_length=data.clip_length,
        seed=0 if source else data.seed,
        variant=dict(variant),
        source=os.path.abspath(source) if source else "",
    )


def _as_folder_name(label: str) -> str:
    """The label itself where it is one plain folder name; otherwise a name made of it, which no other label has.

    A variant may hold what a user wrote, such as a path: it must not leave the folder of the data.
    """
    plain = re.sub(r"[^\w.=+,-]+", "_", label, flags=re.ASCII).lstrip(".")[:150]
    return label if plain == label else f"{plain}-{_digest(label)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def split_units(count: int) -> dict[str, range]:
    """Shares out `count` clips, episodes or levels 80/10/10, at least one to each split.

    Raises:
      DataError: there are fewer than ten.
    """
    if count < 10:
        raise DataError(f"config.data.num_frames makes {count} clips: expected at least 10, for three splits")
    tenth = count // 10
    bounds = (0, count - 2 * tenth, count - tenth, count)
    return {name: range(*part) for name, part in zip(SPLITS, itertools.pairwise(bounds), strict=True)}
