"""Runs the tiny stage on meshes over simulated devices and prints the losses as JSON; started by test_sharding.py."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import numpy as np

from flam_jax.checkpoints import Checkpoints
from flam_jax.metrics_file import read_metrics
from flam_jax.training.sharding import make_mesh
from flam_jax.training.trainer import train
from tests.training.stand_in import TinyStage, tiny_config


def main(workdir: Path) -> None:
    meshes = {
        "one": make_mesh(devices=jax.devices()[:1]),
        "data": make_mesh(data=4),
        "mixed": make_mesh(data=2, fsdp=2),
    }
    config = tiny_config(num_steps=8, checkpoint_every=8, log_every=1)
    losses, specs, params = {}, {}, {}
    for name, mesh in meshes.items():
        variables = train(TinyStage(), config, workdir / name, mesh=mesh)
        params[name] = variables["params"]
        kernel = params[name]["into"]["kernel"]
        whole = kernel.sharding.is_fully_replicated
        specs[name] = "1 device" if whole else f"{len(kernel.sharding.device_set)} devices"
        losses[name] = [e["values"]["loss"] for e in read_metrics(workdir / name, "tokenizer") if "speed" in e]
    # A checkpoint of four devices, read on one.
    with Checkpoints(workdir / "mixed" / "tokenizer") as checkpoints:
        restored = checkpoints.parameters()
    equal = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), restored, params["mixed"])
    # And the run goes on there.
    more = tiny_config(num_steps=10, checkpoint_every=8, log_every=1)
    train(TinyStage(), more, workdir / "mixed", mesh=meshes["one"])
    print(json.dumps({"losses": losses, "specs": specs, "restored_equal": jax.tree.all(equal)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
