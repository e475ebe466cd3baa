"""The whole launcher, killed at random moments: it ends as if nothing had happened."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flam_jax.checkpoints import Checkpoints
from flam_jax.metrics_file import read_metrics

ROOT = Path(__file__).parents[2]
KILLS = 12


def launch(workdir: Path, kills: int, data: Path, checkpoint_every: int) -> dict[str, Any]:
    """Runs both stages in many small steps."""
    fields: dict[str, Any] = {"data.path": data}
    for stage, steps in (("tokenizer", 60), ("dynamics", 80)):
        changes = {"num_steps": steps, "log_every": 1, "eval_every": 40, "checkpoint_every": checkpoint_every}
        fields |= {f"{stage}.training.{name}": value for name, value in changes.items()}
    words = ["--config=experiments/multigrid.py:debug", *(f"--config.{name}={value}" for name, value in fields.items())]
    script = Path(__file__).with_name("run_killed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(workdir), str(kills), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    output = workdir.with_suffix(".txt")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == 0, output.read_text()[-3000:]
    assert "Traceback" not in output.read_text()
    return found


def saved(workdir: Path, stage: str) -> tuple[dict[str, Any], Any]:
    """What a checkpoint says of the run, but for its seconds, and all its arrays."""
    with Checkpoints(workdir / stage, read_only=True) as checkpoints:
        step, meta = checkpoints.latest_step(), checkpoints.meta()
        args = checkpoints._ocp.args
        items = {name: args.StandardRestore() for name in ("params", "optimizer")}
        arrays = checkpoints._manager.restore(step, args=args.Composite(**items))
    del meta["seconds"]
    for name in ("tokenizer", "dynamics"):
        del meta["config"][name]["training"]["checkpoint_every"]
    return meta, dict(arrays)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_run_that_is_killed_again_and_again_ends_bit_identical(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert launch(straight, 0, tmp_path / "data", checkpoint_every=1000)["killed"] == 0
    found = launch(killed, KILLS, tmp_path / "data", checkpoint_every=4)
    assert found["killed"] == KILLS
    assert found["writing"] >= 3  # kills while a checkpoint was being written
    for stage in ("tokenizer", "dynamics"):
        (meta, arrays), (expected_meta, expected) = saved(killed, stage), saved(straight, stage)
        assert meta == expected_meta  # configuration, step and the position of the loader
        assert jax.tree.all(jax.tree.map(np.array_equal, arrays, expected))
        lines, others = ([(e["step"], e["values"]) for e in read_metrics(w, stage)] for w in (killed, straight))
        assert lines == others  # every line once, in order, with the same numbers
    evaluations = [json.loads((workdir / "evaluation.json").read_text()) for workdir in (killed, straight)]
    for evaluation in evaluations:
        for name in ("seconds", "identity"):
            del evaluation[name]
    assert evaluations[0] == evaluations[1]
