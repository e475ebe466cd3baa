"""Trains on a small disk that fills up, then makes room and goes on; started by test_checkpoints.py."""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np

from flam_jax.checkpoints import CheckpointError, Checkpoints
from flam_jax.training.trainer import train
from tests.training.stand_in import TinyLoader, TinyStage, tiny_config

WIDTH = 8_000  # some megabytes a checkpoint


class FillingLoader(TinyLoader):
    """Leaves hardly any room on the disk once the checkpoint of step 4 is complete and the one before is deleted."""

    def __init__(self, checkpoints: Path, rest: Path):
        super().__init__()
        self.checkpoints, self.rest = checkpoints, rest

    def __next__(self) -> dict[str, np.ndarray]:
        if self.position == 5:
            # Before that the saver would write into the same room at the same time, or make some by the deletion.
            deadline = time.monotonic() + 60
            while {path.name for path in self.checkpoints.iterdir()} != {"4"}:
                assert time.monotonic() < deadline, sorted(self.checkpoints.iterdir())
                time.sleep(0.01)
            space = os.statvfs(self.rest.parent)
            self.rest.write_bytes(bytes(max(space.f_bavail * space.f_bsize - 2**20, 0)))
        return super().__next__()


def main(disk: Path) -> None:
    config = tiny_config(checkpoint_every=2, checkpoints_kept=1, eval_every=12)
    stage, rest = disk / "run" / "tokenizer", disk / "rest"
    error = ""
    try:
        filling = TinyStage(lambda: FillingLoader(stage / "checkpoints", rest), width=WIDTH)
        train(filling, config, disk / "run")
    except CheckpointError as caught:
        error = str(caught)
    steps = [int(path.name) for path in (stage / "checkpoints").iterdir() if path.name.isdecimal()]
    rest.unlink()
    with Checkpoints(stage) as checkpoints:
        then = checkpoints.latest_step()
    variables = train(TinyStage(width=WIDTH), config, disk / "run")
    straight = train(TinyStage(width=WIDTH), tiny_config(eval_every=12, checkpoint_every=12), disk / "other")
    equal = jax.tree.all(jax.tree.map(np.array_equal, variables, straight))
    print(json.dumps({"error": error, "good": max(steps, default=0), "then": then, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
