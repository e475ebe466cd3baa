"""Codes of a whole split, computed once by the frozen tokenizer: a few bytes a patch, and no encoding in the step."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

FRAMES_AT_ONCE = 256


class CodeRecords:
    """Stands in for a split's records: `records[i]` is `{"codes": u8[t h w c]}`.

    It is held in memory and can be pickled. It reports skipped records as the split's records do (`ClipSource`).
    """

    def __init__(self, codes: np.ndarray, kept: Mapping[str, np.ndarray], numbers: Sequence[int], source: Any):
        """Takes what has been read.

        Args:
          codes: of all clips, u8[n t h w c].
          kept: other fields of the records, [n t ...].
          numbers: of the record that each clip is; another one's where it was skipped.
          source: the records.
        """
        self.codes, self.kept, self.numbers = codes, kept, numbers
        self.skips = getattr(source, "skips", False)
        if self.skips:
            self.mark_unreadable, self.faults = source.mark_unreadable, source.faults

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"CodeRecords({len(self)} clips)"

    def find(self, index: int, keys: Iterable[str]) -> tuple[int, dict[str, np.ndarray]]:
        """One record, and its number in the split."""
        return self.numbers[index], self[index]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"codes": self.codes[index], **{name: values[index] for name, values in self.kept.items()}}


def encode_records(tokenizer: nn.Module, params: Any, source: Any, keep: tuple[str, ...] = ()) -> CodeRecords:
    """Encodes every frame of a split.

    Args:
      tokenizer: the module.
      params: its parameters.
      source: records with `frames`, u8[t H W 3], all of one shape.
      keep: other fields that the records keep.
    """

    @jax.jit
    def encode(params: Any, frames: jax.Array) -> jax.Array:
        features = tokenizer.apply({"params": params}, frames.astype(jnp.float32) / 255.0, method="encode")
        return tokenizer.apply({"params": params}, features, method="codes")  # type: ignore

    find = getattr(source, "find", lambda i, _: (i, source[i]))  # the fields that are needed, where that is possible
    length = len(find(0, ("frames",))[1]["frames"])
    clips_at_once = max(1, FRAMES_AT_ONCE // length)
    codes = []
    numbers: list[int] = []
    kept: dict[str, list[np.ndarray]] = {name: [] for name in keep}
    for first in range(0, len(source), clips_at_once):
        # The last group is filled up with its last clip, so that one compiled program serves all.
        found = [find(min(i, len(source) - 1), ("frames", *keep)) for i in range(first, first + clips_at_once)]
        numbers += [number for number, _ in found]
        clips = [clip for _, clip in found]
        codes.append(np.asarray(encode(params, np.stack([clip["frames"] for clip in clips]))))
        for name, values in kept.items():
            values.append(np.stack([clip[name] for clip in clips]))
    join = lambda parts: np.concatenate(parts)[: len(source)]  # noqa: E731
    kept_values = {name: join(values) for name, values in kept.items()}
    return CodeRecords(join(codes), kept_values, numbers[: len(source)], source)
