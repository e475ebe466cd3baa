"""Studies are what they say they are, and the command goes on where it stopped."""

import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from flam_jax import reproduce
from flam_jax.build import build_dynamics
from flam_jax.config import ConfigError
from flam_jax.studies import PRESETS, STUDIES, cells
from tests import readme

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("study", ["multigrid", "procgen", "agents", "slots", "ablations"])
def test_rows_of_a_column_differ_in_the_model_alone(study, preset):
    """Same data, tokenizer, training and total size of the actions; parameter counts within a tenth of FLAM's."""
    columns = {}
    for cell in cells(study, preset):
        config = cell.config({})
        columns.setdefault(cell.column, {}).setdefault(cell.row, []).append((cell.seed, config))
    for rows in columns.values():
        assert len(rows) >= (2 if preset == "debug" else 3)
        assert len({tuple(seed for seed, *_ in runs) for runs in rows.values()}) == 1  # the same seeds
        (_, flam), *_ = rows["FLAM"]
        for runs in rows.values():
            (_, config), *_ = runs
            for section in ("data", "tokenizer", "evaluation"):
                assert config[section] == flam[section]
            different = {name for name, value in config.dynamics.items() if value != flam.dynamics[name]}
            assert different <= {"name", "model_dim"}
            if preset != "debug":
                assert _parameters(config) == pytest.approx(_parameters(flam), rel=0.1)


def test_sweeps_change_one_thing():
    def values(study, row_start, *fields):
        return [
            tuple(cell.config({}).dynamics[field] for field in fields)
            for cell in cells(study, "cpu")
            if cell.seed == 0 and cell.row.startswith(row_start)
        ]

    assert values("sweeps", "K =", "num_factors", "total_action_dim") == [(k, 64) for k in (2, 4, 16)]
    assert values("sweeps", "FLAM", "num_factors")[0] == (8,)  # not run twice
    betas = [1e-5, 1e-4, 1e-3, 1e-2]
    assert values("sweeps", "β =", "kl_weight", "kl_weight_final") == [(beta, beta) for beta in betas]
    assert {cell.column for cell in cells("sweeps", "cpu")} == {"4agents", "correlated"}
    assert values("information", "FLAM", "kl_weight_final") == values("information", "AdaWorld", "kl_weight_final")
    assert set(values("information", "AdaWorld", "name", "model_dim")) == {("adaworld", 96)}


def _parameters(config):
    """Number of parameters; studies have many cells in common, and tracing a model takes seconds."""
    parts = {"dynamics": dict(config.dynamics), "levels": config.tokenizer.levels, "frame": config.data.frame_size}
    name = str(parts | {"patch": config.tokenizer.patch_size, "agents": config.data.multigrid.num_agents})
    if name not in _counted:
        grid = config.data.frame_size // config.tokenizer.patch_size
        features = jax.ShapeDtypeStruct((1, 2, grid, grid, len(config.tokenizer.levels)), jnp.float32)
        shapes = jax.eval_shape(build_dynamics(config).init, jax.eval_shape(lambda: jax.random.key(0)), features)
        _counted[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return _counted[name]


_counted: dict[str, int] = {}


def test_all_holds_every_cell_once():
    folders = [cell.folder for cell in cells("all", "cpu")]
    assert len(set(folders)) == len(folders)
    assert set(folders) == {cell.folder for study in STUDIES for cell in cells(study, "cpu")}


def test_the_first_cell_of_a_column_is_the_same_in_all_studies():
    """It trains the tokenizer."""
    first = {}
    for study in STUDIES:
        for cell in cells(study, "cpu"):
            found = first.setdefault((study, cell.column), cell)
            assert found.folder == f"{cell.column}/flam/seed0"


def test_mistakes_are_one_line(capsys):
    for words, expected in (
        (["--study=multigird"], "--study=multigird: expected one of multigrid, procgen"),
        (["--study=multigrid", "--preset=big"], "--preset=big: expected one of cpu, paper, debug"),
        (["--study=multigrid", "extra"], "unexpected argument 'extra'"),
        (["--study=multigrid", "--config.dynamics.kl_wieght=1"], "the nearest is config.dynamics.kl_weight"),
    ):
        assert reproduce.main([*words, "--workdir=nowhere"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("flam_jax.reproduce: ")
        assert expected in line
    assert not Path("nowhere").exists()
    with pytest.raises(ConfigError):
        cells("none", "cpu")


@pytest.mark.xdist_group("debug_run")
def test_a_study_from_nothing_and_again(debug_run):
    command = [sys.executable, "-m", "flam_jax.reproduce", "--study=multigrid", "--preset=debug"]
    command += ["--workdir=runs/study"]  # that of the README, which may have been run already
    assert "multigrid: 2 runs, " in readme.run(command, debug_run).stdout
    result = json.loads((debug_run / "runs" / "study" / "results.json").read_text())
    rows = result["columns"]["4agents"]
    assert set(rows) == {"FLAM", "Genie"}
    assert all(row["seeds"] == [0] for row in rows.values())
    assert len({tuple(row["numbers"]["ceiling_psnr_mean"]["values"]) for row in rows.values()}) == 1  # one tokenizer
    assert result["missing"] == []
    # The second row's own model on the first row's tokenizer.
    assert rows["Genie"]["numbers"]["kl"]["values"] == pytest.approx([math.log(8)], abs=1e-3)

    (debug_run / "runs" / "study" / "4agents" / "genie" / "seed0" / "evaluation.json").unlink()
    again = readme.run(command, debug_run).stdout
    assert "multigrid: 2 runs, 1 of them done" in again
    assert "dynamics finished before" in again
    assert (debug_run / "runs" / "study" / "4agents" / "genie" / "seed0" / "evaluation.json").exists()
