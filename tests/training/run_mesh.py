"""Trains a small FLAM on real batches, on the mesh and as the process that it is told; started by test_meshes.py.

Ends with status 75 when it was asked to end, as the launcher does. Every process notes which rows of which batches
it has read.
"""

import json
import os
import signal
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import jax.numpy as jnp

from data_pipelines import prepare
from flam_jax import cluster
from flam_jax.build import build_tokenizer
from flam_jax.config import load_config
from flam_jax.main import quiet_logging
from flam_jax.training.sharding import make_mesh
from flam_jax.training.signals import PREEMPTED_STATUS, Preempted
from flam_jax.training.stages.dynamics import DynamicsStage
from flam_jax.training.trainer import train

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "multigrid.py"


class NotingLoader:
    """A loader that writes down what it reads, and asks its own process to end at one batch."""

    def __init__(self, loader: Any, rows: Sequence[int], log: Path, stop_at: int):
        self.loader, self.rows, self.log, self.stop_at = loader, list(rows), log, stop_at

    def __next__(self) -> dict[str, Any]:
        step = self.loader.get_state()["step"] + 1
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        batch = next(self.loader)
        sums = [zlib.crc32(frames.tobytes()) for frames in batch["frames"]]
        seen = {"step": step, "rows": self.rows, "record": batch["record"].tolist(), "crc": sums}
        with self.log.open("a") as file:
            file.write(json.dumps(seen) + "\n")
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class NotingStage(DynamicsStage):
    """The stage with such a loader."""

    log: Path
    stop_at: int

    def make_loader(self, rows: Sequence[int] | None = None) -> Any:
        assert rows is not None
        return NotingLoader(super().make_loader(rows), rows, self.log, self.stop_at)


def main(workdir: Path, data: str, mesh_sizes: dict[str, int], stop_at: int, flags: dict[str, str]) -> int:
    quiet_logging()
    cluster.start(flags)
    changes: dict[str, Any] = {
        "data.path": data,
        "dynamics.local_context": True,
    }
    training = {"num_steps": 20, "batch_size": 8, "log_every": 1, "eval_every": 20, "checkpoint_every": 1000}
    changes |= {f"dynamics.training.{name}": value for name, value in training.items()}
    config = load_config(EXPERIMENT, "debug", changes)
    tokenizer = build_tokenizer(config)
    frames = jnp.zeros((1, *config.data.frame_size, 3))
    params = jax.jit(tokenizer.init)(jax.random.key(1), frames)["params"]
    mesh = make_mesh(**mesh_sizes)
    stage = NotingStage(config, prepare(config.data), {"tokenizer": params})
    stage.log, stage.stop_at = workdir.with_suffix(f".rows{jax.process_index()}"), stop_at
    try:
        train(stage, config, workdir, mesh=mesh)
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return PREEMPTED_STATUS
    return 0


if __name__ == "__main__":
    workdir, data, sizes, stop_at, flags = sys.argv[1:]
    sys.exit(main(Path(workdir), data, json.loads(sizes), int(stop_at), json.loads(flags)))
