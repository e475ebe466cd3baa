"""What the trainer needs to know of a stage; everything else about it stays in the stage's own file."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

# `frames` u8[b t H W 3] or `codes` i32[b t h w], and `frozen`, see below.
Batch = Mapping[str, Any]


@runtime_checkable
class Stage(Protocol):
    """One stage of training, `tokenizer` or `dynamics`.

    A stage may also define
      `prepare(batch) -> batch`: what of the loss needs no gradient, done once where a batch is taken in parts;
      `frozen`: a tree of arrays that the loss reads and nobody trains; it stands in every batch under that name;
      `span(part) -> (first, last)`: the shares of training between which a part of the parameters, by its first name,
      is trained, with a schedule of its own; before and after it stays as it is, which gradients of zero alone do not
      see to;
      `warnings(values) -> list[str]`: sentences that name what collapsed and the remedy, made from every set of values
      that is logged.
    """

    name: str

    def init(self, key: jax.Array, batch: Batch) -> Mapping[str, Any]:
        """Initial variables; only the collection `params` is trained, and there may be no other."""
        ...

    def loss(
        self, params: Any, batch: Batch, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """The loss of one batch, and scalars to log; traced once. `progress` is f32[] in [0, 1), for annealing."""
        ...

    def evaluate(
        self, variables: Mapping[str, Any], step: int, progress: float
    ) -> tuple[Mapping[str, float], Mapping[str, np.ndarray]]:
        """Scalars and pictures (u8[H W 3]) by name, made on the validation split. Must not depend on earlier calls."""
        ...
