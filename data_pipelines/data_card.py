"""The data card: what was read from a source, what was left out and why, and a picture of it, beside the records."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_pipelines.metadata import MetadataError, read_json
from data_pipelines.paths import replacing

FILE, PREVIEW = "card.json", "preview.png"
_COLUMNS, _ROWS = 8, 4
_GAP = 2  # pixels between the frames of a preview


@dataclass(frozen=True)
class DataCard:
    """What a data set was read from.

    Attributes:
      source: the folder.
      unit: what `sources` are: `file`, `episode`, `log`.
      sources: names, relative to the folder; a record's `episode` is a number in this list.
      seconds: of video that the clips hold, frames in several clips counted once.
      frames: that were looked at, at the rate of the data set.
      frame_rate: frames a second; 0 for those of the files.
      clips: by split.
      split_by: `source`, or `time` where there are too few sources.
      rejected: sources and files that are of no use, with the reason.
      ignored: other files, counted by the ends of their names.
      notes: what is unusual about a source that was read.
      left_out: frames and breaks, counted by their kind.
      sizes, rates: how many sources have that size in pixels, or that many frames a second.
      listing: fingerprint of the source when it was read.
    """

    source: str
    unit: str
    sources: Sequence[str]
    seconds: float
    frames: int
    frame_rate: float
    clips: Mapping[str, int]
    split_by: str
    rejected: Mapping[str, str]
    ignored: Mapping[str, int]
    notes: Mapping[str, Sequence[str]]
    left_out: Mapping[str, int]
    sizes: Mapping[str, int]
    rates: Mapping[str, int]
    listing: str

    def describe(self) -> list[str]:
        """Lines for logs: what was used, and the first of what was not."""
        hours = f"{self.seconds / 3600:.2f} hours" if self.seconds >= 360 else f"{self.seconds:.0f} seconds"
        lines = [f"{self.summary()['used']} {self.unit}s used, {hours} of video; split by {self.split_by}"]
        # A name may hold anything, also what moves the cursor of a terminal.
        shown = [name if name.isprintable() else ascii(name) for name in self.rejected][:5]
        lines += [f"not used: {name}: {reason}" for name, reason in zip(shown, self.rejected.values(), strict=False)]
        more = len(self.rejected) - 5
        return [*lines, f"not used: {more} more, listed in {FILE}"] if more > 0 else lines

    def summary(self, most: int = 50) -> dict[str, Any]:
        """The card for a report: no list of what was used, and the first of what was not and of the notes.

        Args:
          most: entries of a list.
        """
        tree = asdict(self)
        del tree["sources"], tree["listing"]
        tree["used"] = len(set(self.sources) - set(self.rejected))
        for name in ("rejected", "notes"):
            entries = list(tree[name].items())
            tree[name] = dict(entries[:most])
            tree[f"more_{name}"] = max(0, len(entries) - most)
        return tree

    def write(self, folder: Path, preview: UInt8[np.ndarray, "H W 3"] | None) -> None:
        """Writes card and picture into a folder."""
        from PIL import Image

        with replacing(folder / FILE) as file:
            file.write(json.dumps(asdict(self), indent=1, ensure_ascii=False).encode("utf-8", "replace"))
        if preview is not None:
            with replacing(folder / PREVIEW) as file:
                Image.fromarray(preview).save(file, format="PNG")

    @classmethod
    def read(cls, folder: Path) -> "DataCard | None":
        """The card of a data set; None where there is none, or one that is not as it is written here."""
        try:
            tree = read_json(folder / FILE, most_bytes=256 * 2**20)
        except MetadataError:
            return None
        kinds = {"source": str, "unit": str, "seconds": (int, float), "frames": int, "frame_rate": (int, float)}
        kinds |= {"split_by": str, "listing": str, "sources": list}
        kinds |= dict.fromkeys(("clips", "rejected", "ignored", "notes", "left_out", "sizes", "rates"), dict)
        if set(tree) != set(kinds) or not all(isinstance(tree[name], kind) for name, kind in kinds.items()):
            return None
        return cls(**tree)


def read_preview(folder: Path) -> UInt8[np.ndarray, "H W 3"] | None:
    """The picture of a data set's card, if there is one."""
    from data_pipelines.pictures import VideoError, read_picture

    try:
        return read_picture(folder / PREVIEW)
    except VideoError:
        return None


def preview_sheet(frames: Sequence[np.ndarray]) -> UInt8[np.ndarray, "H W 3"]:
    """Frames side by side, on white.

    Args:
      frames: u8[H W 3] each, at most `PREVIEW_FRAMES`.
    """
    height, width = frames[0].shape[:2]
    columns = min(_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        y, x = row * (height + _GAP), column * (width + _GAP)
        sheet[y : y + height, x : x + width] = frame
    return sheet


PREVIEW_FRAMES = _COLUMNS * _ROWS


def histogram(values: Sequence[Any]) -> dict[str, int]:
    """How often every value comes, the most frequent first."""
    return dict(Counter(map(str, values)).most_common())


__all__ = ["FILE", "PREVIEW", "PREVIEW_FRAMES", "DataCard", "histogram", "preview_sheet", "read_preview"]
