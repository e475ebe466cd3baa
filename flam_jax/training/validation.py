"""The fixed validation windows of a stage, and means over them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

# Batches of every validation; always the same windows, so that values can be compared along a run and between runs.
NUM_BATCHES = 4


def validation_frames(source: Any, batch_size: int, window: int, num_batches: int = NUM_BATCHES) -> list[np.ndarray]:
    """`num_batches` batches of windows, u8[b window H W 3], the same at every call."""
    from data_pipelines import make_loader

    loader = make_loader(source, batch_size=min(batch_size, len(source)), window=window, seed=0, shuffle=False)
    frames = [next(loader)["frames"] for _ in range(num_batches)]
    loader.close()
    return frames


def mean_values(
    function: Callable[[np.ndarray], Mapping[str, jax.Array]], batches: Iterable[np.ndarray]
) -> dict[str, float]:
    """Means over the batches of the scalars that `function` gives for each."""
    values = [jax.device_get(function(batch)) for batch in batches]
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}
