"""What decides the content of a data set, and how that is shared out over splits."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from data_pipelines.errors import DataError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every field that decides the content of a data set, and nothing else."""

    dataset: str
    frame_size: int  # pixels per side
    num_frames: int  # over all splits; rounded up to whole clips
    clip_length: int  # frames per record
    seed: int
    variant: Mapping[str, Any]  # numbers and words: the fields of this data set only

    @property
    def num_clips(self) -> int:
        return math.ceil(self.num_frames / self.clip_length)

    @property
    def label(self) -> str:
        """Names the folder; recipes that differ have labels that differ."""
        fields = (
            value if isinstance(value, str) else f"{key}{value}".removesuffix(".0")
            for key, value in self.variant.items()
        )
        variant = "-".join(fields)
        return f"{variant}-{self.frame_size}px-{self.num_frames}frames-clips{self.clip_length}-seed{self.seed}"


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
