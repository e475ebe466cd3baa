"""The fixed validation windows of a stage, and means over them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

# Of every validation; always the same, whatever the batch size, so that values can be compared along a run and between
# runs.
NUM_WINDOWS = 64


def validation_frames(source: Any, batch_size: int, window: int, num_windows: int = NUM_WINDOWS) -> list[np.ndarray]:
    """`num_windows` windows in batches u8[b window H W 3], the same at every call; fewer where no batch fits in."""
    from data_pipelines import make_loader

    size = min(batch_size, num_windows, len(source))
    loader = make_loader(source, batch_size=size, window=window, seed=0, shuffle=False)
    frames = [next(loader)["frames"] for _ in range(num_windows // size)]
    loader.close()
    return frames


def mean_values(
    function: Callable[[np.ndarray], Mapping[str, jax.Array]], batches: Iterable[np.ndarray]
) -> dict[str, float]:
    """Means over the batches of the scalars that `function` gives for each."""
    values = [jax.device_get(function(batch)) for batch in batches]
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}
