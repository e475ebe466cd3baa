"""Copies of training clips with entities taken out and entities of other clips put in (copy-paste, Ghiasi et al. 2021).

Of a camera that stands still: what differs from the median frame is an entity, and the median frame is what lies behind
it. A short film shows few entities in few places, and a model learns by heart what stands where. In the copies, as many
entities stand in other places.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from scipy import ndimage

# A pixel shows an entity where one of its values differs from the median frame's by more than this, of 255.
THRESHOLD = 30
# Of an entity, in a mean frame of the clip. Less is noise, and stays where it is.
LEAST_PIXELS = 5
# Every entity of the copied clip stays with this probability, and every entity of the other clip comes.
KEPT = 0.5
# The furthest that an entity is moved, in shares of the frame's height and width. Further across than down: what is far
# from the camera is small and high up in the frame.
REACH = (1 / 3, 1 / 2)


class CopyPaste:
    """Records of a split, then `copies` times as many, in each of which some entities are exchanged.

    The other record, the entities, how far they are moved and whether left and right are exchanged follow from the seed
    and the number of the copy. What is put in covers what is there. Fields beside the frames are those of the copied
    record. Records that cannot be read are skipped and told as those of the split are (`ClipSource`).
    """

    def __init__(self, source: Any, median: UInt8[np.ndarray, "H W 3"], copies: int, seed: int):
        """Takes the split's records, their median frame, the number of copies of each and a seed."""
        self.source, self.median, self.copies, self.seed = source, median, copies, seed
        self.skips = source.skips

    def __len__(self) -> int:
        return len(self.source) * (1 + self.copies)

    def __repr__(self) -> str:
        return f"CopyPaste({self.copies} copies of {self.source!r})"

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.find(index, self.source.fields)[1]

    def find(self, index: int, keys: Iterable[str]) -> tuple[int, dict[str, np.ndarray]]:
        """As `ClipSource.find`; numbers are of these records."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self!r} has no record {index}")
        copy, number = divmod(int(index) % len(self), len(self.source))
        found, record = self.source.find(number, keys)
        if copy and "frames" in record:
            rng = np.random.default_rng((self.seed, copy, number))
            record = {**record, "frames": self._exchanged(record["frames"], rng)}
        return copy * len(self.source) + found, record

    def mark_unreadable(self, numbers: Iterable[int]) -> None:
        """As `ClipSource.mark_unreadable`."""
        self.source.mark_unreadable(number % len(self.source) for number in numbers)

    def faults(self, records: Iterable[int] | None = None) -> list[str]:
        """As `ClipSource.faults`."""
        return self.source.faults(None if records is None else {number % len(self.source) for number in records})

    def _exchanged(
        self, frames: UInt8[np.ndarray, "t H W 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "t H W 3"]:
        """The frames without some of their entities, and with some of those of another record."""
        labels, count = foreground_entities(frames, self.median)[1:]
        gone = np.flatnonzero(rng.random(count) >= KEPT) + 1
        result = np.where(np.isin(labels, gone)[..., None], self.median, frames)
        other = self.source.read(int(rng.integers(len(self.source))), ("frames",))["frames"]
        moving, labels, count = foreground_entities(other, self.median)
        for number in np.flatnonzero(rng.random(count) < KEPT) + 1:
            where = moving & (labels == number)
            self._put(result, *((other, where) if rng.integers(2) else (other[:, :, ::-1], where[:, :, ::-1])), rng)
        return result

    def _put(
        self,
        frames: UInt8[np.ndarray, "t H W 3"],
        other: UInt8[np.ndarray, "t H W 3"],
        where: Bool[np.ndarray, "t H W"],
        rng: np.random.Generator,
    ) -> None:
        """Copies an entity into the frames, moved by the same distance in all."""
        (rows, from_rows), (columns, from_columns) = (
            _moved(size, int(rng.integers(-int(share * size), int(share * size) + 1)))
            for share, size in zip(REACH, where.shape[1:], strict=True)
        )
        seen = where[:, from_rows, from_columns]
        frames[:, rows, columns][seen] = other[:, from_rows, from_columns][seen]


def foreground_entities(
    frames: UInt8[np.ndarray, "t H W 3"], median: UInt8[np.ndarray, "H W 3"]
) -> tuple[Bool[np.ndarray, "t H W"], Int[np.ndarray, "t H W"], int]:
    """What the median frame does not show, one entity where it hangs together in space and time.

    Args:
      frames: of a clip.
      median: what is seen where there is no entity.

    Returns:
      Where entities are; the number of the entity, from 1, in these pixels and those beside them, which its edges shine
      into, 0 elsewhere; and how many there are.
    """
    moving = np.abs(frames.astype(np.int16) - median).max(axis=-1) > THRESHOLD
    labels: Any = np.empty(moving.shape, np.int32)
    count: Any = ndimage.label(ndimage.binary_dilation(moving, np.ones((1, 3, 3), bool)), output=labels)
    sizes = np.bincount(labels[moving], minlength=count + 1)
    large = sizes >= LEAST_PIXELS * len(frames)
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0)
    return moving, numbers[labels], int(large.sum())


def _moved(size: int, by: int) -> tuple[slice, slice]:
    """Of an axis, the places that are still within it when all are moved, and where they come from."""
    return slice(max(0, by), size + min(0, by)), slice(max(0, -by), size - max(0, by))


__all__ = ["KEPT", "REACH", "CopyPaste", "foreground_entities"]
