"""The fixed validation windows of a stage, and means over them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

# Of every validation; always the same, whatever the batch size, so that values can be compared along a run and between
# runs.
NUM_WINDOWS = 64


def validation_batches(
    source: Any, batch_size: int, window: int, num_windows: int = NUM_WINDOWS, keys: Sequence[str] = ("frames",)
) -> list[dict[str, np.ndarray]]:
    """`num_windows` windows in batches {key: [b window ...]}, the same at every call; fewer where no batch fits in."""
    from data_pipelines import make_loader

    size = min(batch_size, num_windows, len(source))
    loader = make_loader(source, batch_size=size, window=window, seed=0, shuffle=False, keys=keys)
    loaded = [next(loader) for _ in range(num_windows // size)]
    loader.close()
    return [{key: batch[key] for key in keys} for batch in loaded]


def mean_values(
    function: Callable[[dict[str, np.ndarray]], Mapping[str, jax.Array]], batches: Iterable[dict[str, np.ndarray]]
) -> dict[str, float]:
    """Means over the batches of the scalars that `function` gives for each."""
    values = [jax.device_get(function(batch)) for batch in batches]
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}
