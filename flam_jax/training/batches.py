"""Batches on their way to the devices."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from flam_jax.training.sharding import batch_sharding

# Entries of a batch that name its origin: records and first frames. They stay on the host.
HOST_ENTRIES = ("record", "start", "skipped")


@runtime_checkable
class Loader(Protocol):
    """An endless iterator of batches with a position that can be stored (`data_pipelines.make_loader`).

    `faults` describes records that were skipped, one line a file. `close` ends threads and worker processes.
    """

    def __next__(self) -> dict[str, np.ndarray]: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...
    def faults(self, records: Iterable[int]) -> list[str]: ...
    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class DeviceBatch:
    """One batch: arrays on the mesh, its origin on the host, and the loader's state after it (JSON text)."""

    arrays: dict[str, jax.Array]
    origin: dict[str, np.ndarray]
    loader_state: str


def next_batch(loader: Loader, mesh: Mesh) -> DeviceBatch:
    """The loader's next batch. Its transfer is only started: called while a step runs, both go on together."""
    batch = dict(next(loader))
    origin = {name: batch.pop(name) for name in HOST_ENTRIES if name in batch}
    return DeviceBatch(_to_devices(batch, mesh), origin, json.dumps(loader.get_state()))


def _to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    sharding = batch_sharding(mesh)
    if jax.process_count() > 1:  # every process has read the rows of its devices (`sharding.local_rows`)
        with jax.transfer_guard_host_to_device("allow"):  # meant, though JAX does not count it as explicit
            return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
    return jax.device_put(batch, sharding)
