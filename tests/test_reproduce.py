"""Studies are what they say they are, and the command goes on where it stopped."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from flam_jax import main, reproduce
from flam_jax.build import build_dynamics
from flam_jax.command_line import parse_arguments
from flam_jax.config import PAPER_MODEL, field_names, fields, get_field, identity, load_config
from flam_jax.process import COMPILED
from flam_jax.studies import PRESETS, STUDIES, cells, run
from flam_jax.studies.definitions import (
    BETA_WARMUP,
    LEARNING_RATES,
    LONGER_WINDOWS,
    MORE_SEEDS,
    SEEDS,
    TUNING_SEEDS,
)
from tests import readme
from tests.test_field_effects import SHAPES

ROOT = Path(__file__).parents[1]
SPECIAL = (BETA_WARMUP, LONGER_WINDOWS)  # what some models have of their own, by preset and model


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("study", "preset"),
    [
        pytest.param(study, preset, marks=() if preset == "debug" or study == "multigrid" else pytest.mark.long)
        for study in ("multigrid", "procgen", "agents", "slots", "ablations")
        for preset in PRESETS
        if (study, preset) != ("procgen", "gpu")  # is for MultiGrid alone
    ],
)
def test_rows_of_a_column_differ_in_the_model_alone(study, preset):
    """Same data, tokenizer, training and total size of the actions; parameter counts within a tenth of FLAM's."""
    columns = {}
    for cell in cells(study, preset):
        config = cell.config({})
        columns.setdefault(cell.column, {}).setdefault(cell.row.key, []).append((cell.seed, config))
    for rows in columns.values():
        assert len(rows) >= (2 if preset == "debug" else 3)
        seeds = {row: tuple(seed for seed, *_ in runs) for row, runs in rows.items()}
        assert set(seeds.values()) <= {SEEDS[:1] if preset == "debug" else SEEDS, MORE_SEEDS}
        assert seeds.get("adaworld", seeds["flam"]) == seeds["flam"]
        (_, flam), *_ = rows["flam"]
        for row, ((_, config), *_) in rows.items():
            for section in ("data", "tokenizer", "evaluation"):
                assert config[section] == flam[section]
            different = {
                name
                for name in field_names(config.dynamics)
                if get_field(config.dynamics, name) != get_field(flam.dynamics, name)
            }
            named = {"training.num_steps"} if row.endswith("_in_flam_s_time") else set()
            named |= {"num_factors"} if row.endswith("k_4") else set()
            named |= {"separation_penalty"} if "_no_balance" in row else set()
            named |= {"positions"} if "_places_in_keys" in row else set()
            named |= set(PAPER_MODEL) if row.startswith("paper_s_model") else set()
            growing, longer = (special.get(preset, {}).get(config.dynamics.name, {}) for special in SPECIAL)
            assert different <= {"name", "model_dim", "training.learning_rate"} | named | {*growing, *longer}
            frames = [c.dynamics.training.window * c.dynamics.training.batch_size for c in (config, flam)]
            assert frames[0] == frames[1]
            if preset != "debug":
                assert _parameters(config) == pytest.approx(_parameters(flam), rel=0.1)


def test_sweeps_change_one_thing():
    def values(study, row_start, *fields):
        return [
            tuple(cell.config({}).dynamics[field] for field in fields)
            for cell in cells(study, "cpu")
            if cell.seed == 0 and cell.row.key.startswith(row_start)
        ]

    assert values("sweeps", "k_", "num_factors", "total_action_dim") == [(2, 64), (4, 64), (16, 64), (3, 57), (3, 57)]
    assert values("sweeps", "k_3", "separation_penalty") == [(6.0,), (0.0,)]
    assert values("sweeps", "flam", "num_factors")[0] == (8,)  # not run twice
    models = ["flam", "flam_recurrent", "flam_coupled"]
    kinds = [(8, 6.0, "readout"), (4, 6.0, "readout"), (8, 0.0, "readout"), (8, 0.0, "keys")]
    expected = [(name, *kind) for kind in kinds for name in models]
    expected += [("flam", count, 0.0, "features") for count in (8, 4)]
    assert values("ablations", "", "name", "num_factors", "separation_penalty", "positions") == expected
    models = ["flam", "playslot", "slotformer"]
    assert values("slots", "", "name", "num_factors") == [(name, count) for count in (8, 4) for name in models]
    betas = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert values("sweeps", "flam_beta_", "kl_weight", "kl_weight_final") == [(beta, beta) for beta in betas]
    assert {cell.column for cell in cells("sweeps", "cpu")} == {"4agents", "16agents", "correlated"}
    assert {cell.folder for cell in cells("information", "cpu") if cell.row.key.startswith("flam_beta_")} < {
        cell.folder for cell in cells("sweeps", "cpu")
    }  # run once for both
    betas = [5e-3, 1e-4, 1e-3, 1e-2]
    assert values("information", "flam", "kl_weight", "kl_weight_final") == [(beta, beta) for beta in betas]
    betas = [5e-3, 2e-2]
    assert values("information", "adaworld", "kl_weight", "kl_weight_final") == [(2e-4, beta) for beta in betas]
    assert set(values("information", "adaworld", "name", "model_dim")) == {("adaworld", 96)}
    assert values("information", "genie", "codebook_size", "model_dim") == [(8, 96), (512, 96)]
    flam, *_, large = (cell.config({}) for cell in cells("information", "cpu") if cell.seed == 0)
    assert large.dynamics.codebook_size == 512
    assert _parameters(large) == pytest.approx(_parameters(flam), rel=0.1)


def _parameters(config):
    """Number of parameters; studies have many cells in common, and tracing a model takes seconds."""
    names = (*SHAPES, "data.frame_size", "data.multigrid.num_agents")
    name = tuple(get_field(config, name) for name in names)
    if name not in _counted:
        grid = [size // config.tokenizer.patch_size for size in config.data.frame_size]
        features = jax.ShapeDtypeStruct((1, 2, *grid, len(config.tokenizer.levels)), jnp.float32)
        shapes = jax.eval_shape(build_dynamics(config).init, jax.eval_shape(lambda: jax.random.key(0)), features)
        _counted[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return _counted[name]


_counted: dict[tuple[object, ...], int] = {}


def test_all_holds_every_cell_once():
    folders = [cell.folder for cell in cells("all", "cpu")]
    assert len(set(folders)) == len(folders)
    assert set(folders) == {cell.folder for study in set(STUDIES) - {"tuning"} for cell in cells(study, "cpu")}


def test_the_runs_of_a_column_take_one_tokenizer_which_is_trained_first():
    trained = {}
    for study in STUDIES:
        for planned in run.plan(cells(study, "cpu"), Path("study"), {}):
            config, cell = planned.config, planned.cell
            if cell is None:
                fields = {name: config[name].to_dict() for name in ("data", "tokenizer")} | {"seed": config.seed}
                assert trained.setdefault(planned.folder, fields) == fields  # the same in all studies
            else:
                assert planned.tokenizer == Path("study") / cell.column / "tokenizer"
                assert planned.tokenizer in trained
                assert config.tokenizer.restore_from == str(planned.tokenizer)
                assert config.seed == cell.seed


def test_a_record_is_the_result_of_a_cell_as_it_is_now():
    """Copied into `runs/study`, what `docs/records` holds is taken as done."""
    known = {cell.folder: cell for cell in cells("all", "cpu")}
    files = list((ROOT / "docs" / "records" / "cpu").glob("**/evaluation.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text())
        cell = known[file.parent.relative_to(ROOT / "docs" / "records" / "cpu").as_posix()]
        config = cell.config({"tokenizer.restore_from": f"runs/study/{cell.column}/tokenizer"})
        assert result["identity"] == identity(config), f"{file} is of another configuration: remove it"
        assert (result["model"], result["seed"], result["split"]) == (config.dynamics.name, cell.seed, "test")


def test_together_the_seeds_of_a_row_are_one_program(tmp_path, monkeypatch):
    """The tokenizer alone, then every row with all its seeds."""
    calls = []

    def alone(config, folder, last, command):
        calls.append((last, [config.seed]))
        return 0

    def together(configs, folders):
        calls.append((configs[0].dynamics.name, [config.seed for config in configs]))
        return 0

    monkeypatch.setattr(main, "guarded_run", alone)
    monkeypatch.setattr(main, "guarded_run_together", together)
    words = ["--study=slots", "--preset=cpu", f"--workdir={tmp_path}", "--together"]
    assert reproduce.main(words) == 0
    seeds = {"flam": MORE_SEEDS, "playslot": MORE_SEEDS, "slotformer": SEEDS}
    of_rows = [(name, list(of_row)) for name, of_row in seeds.items()]
    assert calls == [("tokenizer", [0]), *of_rows, *of_rows]  # with eight factors, then with four


def test_a_tokenizer_that_the_user_names_is_taken():
    runs = run.plan(cells("multigrid", "cpu"), Path("study"), {"tokenizer.restore_from": "runs/mine"})
    assert all(planned.cell and planned.config.tokenizer.restore_from == "runs/mine" for planned in runs)


def test_the_settings_are_what_the_rows_change_and_what_the_user_does():
    changes = {"dynamics.training.weight_decay": "0.25"}
    runs = run.plan(cells("sweeps", "cpu"), Path("study"), changes)
    found = run.settings(runs)
    assert set(found) == {"4agents", "16agents", "correlated"}
    grid = found["4agents"]
    planned = [part.cell for part in runs if part.cell]
    assert set(grid) == {cell.row.key for cell in planned if cell.column == "4agents"}
    assert {row: fields["dynamics.num_factors"] for row, fields in grid.items() if row.startswith("k_")} == {
        "k_2": 2,
        "k_4": 4,
        "k_16": 16,
    }
    assert grid["flam_beta_0.1"]["dynamics.kl_weight_final"] == 0.1
    assert {fields["dynamics.training.weight_decay"] for fields in grid.values()} == {0.25}
    same = {"seed", "tokenizer.restore_from", "dynamics.model_dim", "data.name"}
    assert not same & {name for fields in grid.values() for name in fields}


def test_the_command_of_a_run_makes_its_configuration():
    runs = run.plan(cells("information", "cpu"), Path("study"), {"dynamics.training.weight_decay": "0.25"})
    for planned in (runs[1], runs[-1]):
        options = parse_arguments(shlex.split(planned.command)[3:])
        assert load_config(options.config, overrides=dict(options.overrides)) == planned.config
        assert options.workdir == str(planned.folder)


def test_tuning_tries_no_model_less_often_than_flam_and_never_looks_at_the_test_split():
    first, second = {}, {}
    for cell in cells("tuning", "cpu"):
        config = cell.config({})
        assert config.evaluation.split == "val"
        assert cell.seed not in MORE_SEEDS
        rounds = first if cell.seed == TUNING_SEEDS[0] else second
        rounds.setdefault(config.dynamics.name, []).append((config.dynamics.training.learning_rate, cell.seed))
    assert set(first) == set(fields()["dynamics.name"].choices)
    assert {tuple(rate for rate, _ in trials) for trials in first.values()} == {LEARNING_RATES["cpu"]}
    assert "flam" not in second
    for trials in second.values():
        assert len(trials) == len(set(trials)) == 4  # two rates, two seeds
        assert {rate for rate, _ in trials} < set(LEARNING_RATES["cpu"])
    assert not {cell.folder for cell in cells("all", "cpu")} & {cell.folder for cell in cells("tuning", "cpu")}


@pytest.mark.long
@pytest.mark.xdist_group("debug_run")
def test_a_study_from_nothing_and_again(debug_run):
    command = [sys.executable, "-m", "flam_jax.reproduce", "--study=multigrid", "--preset=debug"]
    command += ["--workdir=runs/study"]  # that of the README, which may have been run already
    assert "multigrid: 3 runs, " in readme.run(command, debug_run).stdout
    result = json.loads((debug_run / "runs" / "study" / "results.json").read_text())
    rows = result["columns"]["4agents"]
    assert {row: cell["name"] for row, cell in rows.items()} == {"flam": "FLAM", "genie": "Genie"}
    assert all(row["seeds"] == [0] for row in rows.values())
    assert len({tuple(row["numbers"]["ceiling_psnr_mean"]["values"]) for row in rows.values()}) == 1  # one tokenizer
    assert result["missing"] == []
    # The second row's own model.
    assert rows["genie"]["numbers"]["kl"]["values"] == pytest.approx([math.log(8)], abs=1e-3)

    (debug_run / "runs" / "study" / "4agents" / "genie" / "seed0" / "evaluation.json").unlink()
    again = readme.run(command, debug_run).stdout
    assert "multigrid: 3 runs, 2 of them done" in again
    assert "dynamics finished before" in again
    assert (debug_run / "runs" / "study" / "4agents" / "genie" / "seed0" / "evaluation.json").exists()


def test_runs_side_by_side_share_what_they_compile(monkeypatch, tmp_path):
    """A child finds the folder in its environment."""

    class StartedError(Exception):
        pass

    def start(run, cores):
        raise StartedError(os.environ[COMPILED])

    monkeypatch.delenv(COMPILED, raising=False)
    monkeypatch.setattr(run, "_start", start)
    with pytest.raises(StartedError, match="flam_jax_compiled_"):
        reproduce.main(["--study=slots", "--jobs=2", f"--workdir={tmp_path}"])
    assert COMPILED not in os.environ


def start(folder, *words):
    command = [sys.executable, "-m", "flam_jax.reproduce", "--study=multigrid", "--preset=debug", "--jobs=2"]
    command += [f"--workdir={folder / 'study'}", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def test_runs_side_by_side_are_asked_to_end_with_the_study(tmp_path):
    with start(
        tmp_path, f"--config.data.path={tmp_path / 'data'}", "--config.tokenizer.training.num_steps=1000000"
    ) as process:
        log, deadline = tmp_path / "study" / "4agents" / "tokenizer" / "log.txt", time.monotonic() + 120
        while not (log.is_file() and " loss " in log.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert "status 75; the last of" in error
    assert "flam_jax: tokenizer: stopped at step " in error
    assert list((log.parent / "tokenizer" / "checkpoints").iterdir())


def test_a_run_that_fails_ends_the_study_and_tells_why(tmp_path):
    (tmp_path / "data").write_text("in the way")
    with start(tmp_path, f"--config.data.path={tmp_path / 'data'}") as process:
        output, error = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = error.splitlines()
    assert line.startswith("flam_jax.reproduce: ")
    assert "4agents/tokenizer: status 1; the last of" in line
    assert str(tmp_path / "data") in line.split("log.txt: ")[1]
    assert "flam/seed0" not in output
