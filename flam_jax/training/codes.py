"""Codes of a whole split, computed once by the frozen tokenizer: a few bytes a patch, no frames to encode anew."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

FRAMES_AT_ONCE = 256


class CodeRecords:
    """Stands in for a split's records: `records[i]` is `{"codes": u16[t h w]}` (u32 for more than 65,536 codes).

    Lives in memory, can be pickled.
    """

    def __init__(self, codes: np.ndarray):
        """Takes the codes of all clips, [n t h w]."""
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"CodeRecords({len(self)} clips)"

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"codes": self.codes[index]}


def encode_records(tokenizer: nn.Module, params: Any, source: Any) -> CodeRecords:
    """Encodes every frame of a split.

    Args:
      tokenizer: the module.
      params: its parameters.
      source: records with `frames`, u8[t H W 3], all of one shape.
    """
    smallest = jnp.uint16 if math.prod(tokenizer.levels) <= 2**16 else jnp.uint32  # type: ignore  # of a Tokenizer

    @jax.jit
    def encode(params: Any, frames: jax.Array) -> jax.Array:
        features = tokenizer.apply({"params": params}, frames.astype(jnp.float32) / 255.0, method="encode")
        codes = tokenizer.apply({"params": params}, features, method="codes")
        return codes.astype(smallest)  # type: ignore

    read = getattr(source, "read", None)
    frames_of = (lambda i: read(i, ("frames",))["frames"]) if read else (lambda i: source[i]["frames"])
    length = len(frames_of(0))
    clips_at_once = max(1, FRAMES_AT_ONCE // length)
    codes = []
    for first in range(0, len(source), clips_at_once):
        # The last group is filled up with its last clip, so that one compiled program serves all.
        clips = [frames_of(min(i, len(source) - 1)) for i in range(first, first + clips_at_once)]
        codes.append(np.asarray(encode(params, np.stack(clips))))
    return CodeRecords(np.concatenate(codes)[: len(source)])
