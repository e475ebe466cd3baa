"""Evaluation as a whole: the files that it writes, and the command that writes them again."""

import functools
import json
import math

import numpy as np
import pytest

import data_pipelines.dataset
from data_pipelines import DatasetSpec
from data_pipelines.errors import DataError
from flam_jax import checkpoints, config
from flam_jax.evaluation import __main__ as command
from flam_jax.evaluation import context, evaluate, runner
from flam_jax.evaluation.evaluators import EVALUATORS
from tests.tiny import SIZE, BoardDataset, tiny_config, tiny_model


@functools.cache
def evaluated(folder) -> dict:
    workdir = folder / "run"
    for stage, step in (("tokenizer", 30), ("dynamics", 50)):
        (workdir / stage).mkdir(parents=True)
        checkpoints.write_finished(workdir / stage, step, 1.5)
    entry = {"stage": "dynamics", "step": 10, "time": 0, "values": {"loss": 3.0, "validation/kl_factor/1": 0.5}}
    (workdir / "metrics.jsonl").write_text(json.dumps(entry) + '\n{"cut o')
    (workdir / "config.json").write_text(config.to_json(tiny_config()))
    return evaluate(tiny_config(), workdir, BoardDataset(), world_model=tiny_model())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


def test_the_file_holds_what_is_promised(folder):
    result = evaluated(folder)
    assert json.loads((folder / "run" / runner.FILE).read_text()) == result
    assert result["model"] == "flam"
    assert result["dataset"] == "multigrid 2 agents 16x16"
    assert result["split"] == "test"
    assert result["identity"] == config.identity(tiny_config())
    assert result["steps"] == {"tokenizer": 30, "dynamics": 50}
    assert result["seconds"]["dynamics"] == 1.5
    assert result["seconds"]["evaluation"] > 0
    for key in ("psnr", "ssim", "ceiling_psnr", "copy_last_psnr", "median_psnr"):
        assert len(result["rollout"][key]) == 4
    assert result["rollout"]["clips"] == 5
    assert len(result["binding"]["attention"]) == 2
    assert isinstance(result["binding"]["distinct"], bool)
    assert 0 <= result["binding"]["probe_accuracy"] <= 1
    assert result["dci"]["informativeness"] == result["binding"]["probe_accuracy"]
    assert 0 <= result["dci"]["disentanglement"] <= 1
    assert 0 <= result["dci"]["completeness"] <= 1
    assert set(result["actions"]["leak"]) == {"position", "move", "true_action"}
    assert np.shape(result["actions"]["clusters"]["confusion"]) == (3, 4)
    assert np.shape(result["actions"]["direction_aware_clusters"]["confusion"]) == (16, 17)
    assert len(result["actions"]["transfer"]["psnr"]) == 4
    assert len(result["actions"]["transfer"]["exchanged"]["psnr"]) == 4
    assert 0 < result["actions"]["transfer"]["displaced"] <= 1
    assert math.isclose(sum(result["actions"]["kl_per_factor"]), result["actions"]["kl"], abs_tol=1e-3)


IN_SHORT = ("playslot", "action_conditioned")


@pytest.mark.parametrize(
    "name", [*IN_SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in ("genie", "slotformer"))]
)
def test_baselines_are_scored_and_reported_as_flam_is(name, tmp_path):
    """One slot and a codebook; a code with a variation; no actions at all; true ones."""
    for stage in ("tokenizer", "dynamics"):
        (tmp_path / stage).mkdir()
        checkpoints.write_finished(tmp_path / stage, 1, 1.0)
    result = evaluate(tiny_config(name=name), tmp_path, BoardDataset(), world_model=tiny_model(name=name))
    assert result["model"] == name
    factors, units = {"genie": (1, 6), "playslot": (3, 6), "slotformer": (3, 0), "action_conditioned": (1, 6)}[name]
    assert len(result["actions"]["kl_per_factor"]) == factors
    assert result["actions"]["units"] == units
    assert ("leak" in result["actions"]) == (units > 0)
    assert len(result["binding"]["attention"]) == 2
    assert name.upper() in (tmp_path / "report.html").read_text()


def test_copying_the_last_frame_is_wrong_on_entered_cells(folder):
    cells = evaluated(folder)["cells"]
    assert cells["copy_last"]["entered"]["wrong"] > 0.5
    moves = sum(cells["predicted"][kind]["count"] for kind in ("entered", "turned", "stayed"))
    assert moves == 5 * 4 * 2


def test_the_page_stands_alone(folder):
    result = evaluated(folder)
    page = (folder / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert f"{result['rollout']['psnr_mean']:.2f}" in page
    assert "kl factor" in page
    assert len(page) < 2_000_000


def test_without_positions_there_is_no_binding():
    class Frames(BoardDataset):
        spec = DatasetSpec("frames", SIZE, SIZE)

        def split(self, name):
            return [{"frames": record["frames"]} for record in super().split(name)]

    result, _ = runner.measure(tiny_config(), tiny_model(), Frames())
    reasons = result.pop("not_computed")
    assert set(result) == {"rollout", "actions"}
    assert {key.removeprefix("actions.") for key in reasons} == set(EVALUATORS) - {"rollout", "actions"}
    assert reasons["binding"] == "the records have no positions in cells"
    assert "leak" not in result["actions"]


@pytest.mark.parametrize("split", ["test", "val"])
def test_probes_are_fitted_on_clips_of_another_split_than_the_scored_one(split):
    """What they have never seen they cannot answer: in the split that they are fitted on, nobody ever moves."""
    fitted = {"test": "val", "val": "train"}[split]

    class Still(BoardDataset):
        def split(self, name):
            still = {"positions": 2, "directions": 0, "actions": 0}
            return [
                {**record, **({key: np.full_like(record[key], value) for key, value in still.items()})}
                if name == fitted
                else record
                for record in super().split(name)
            ]

    settings = tiny_config()
    settings.evaluation.split = split
    result, _ = runner.measure(settings, tiny_model(), Still(), ["binding", "leak"])
    positions = np.stack([record["positions"] for record in BoardDataset().split(split)])
    assert result["binding"]["probe_accuracy"] == pytest.approx((positions == 2).all(axis=-1).mean(), abs=0.05)
    leak = result["actions"]["leak"]
    assert leak["true_action"]["action_mlp"] == pytest.approx(leak["true_action"]["chance"], abs=1e-6)
    assert leak["position"]["action_and_position"] == pytest.approx(leak["position"]["chance"], abs=1e-6)


def test_where_clips_cannot_be_played_again_there_is_no_transfer():
    class Once(BoardDataset):
        def displaced(self, record):
            raise DataError("cannot be played again")

    result, _ = runner.measure(tiny_config(), tiny_model(), Once(), ["actions", "transfer"])
    assert result["actions"]["transfer"] == "not computed: cannot be played again"


def test_positions_become_rows_and_columns():
    record = BoardDataset().split("test")[0]
    (column, row), t = record["positions"][4, 1], 4
    assert context.rows_and_columns(record["positions"][None])[0, t, 1].tolist() == [row, column]
    assert record["frames"][t, 4 * row, 4 * column, 0] == 250


def test_the_command(folder, monkeypatch, capsys):
    evaluated(folder)
    stored = {"tokenizer": tiny_model().tokenizer_params, "dynamics": tiny_model().dynamics_params}
    monkeypatch.setattr(checkpoints, "restore_parameters", lambda directory: stored[directory.name])
    monkeypatch.setattr(data_pipelines.dataset, "prepare", lambda data: BoardDataset())
    before = (folder / "run" / runner.FILE).read_text()
    assert command.main([f"--workdir={folder / 'run'}", "--split=val"]) == 0
    assert capsys.readouterr().out.startswith("val: PSNR")
    after = json.loads((folder / "run" / runner.FILE).read_text())
    assert after["split"] == "val"
    assert not np.allclose(after["rollout"]["median_psnr"], json.loads(before)["rollout"]["median_psnr"])


def test_some_measures_alone_are_printed_and_leave_the_files(folder, monkeypatch, capsys):
    evaluated(folder)
    stored = {"tokenizer": tiny_model().tokenizer_params, "dynamics": tiny_model().dynamics_params}
    monkeypatch.setattr(checkpoints, "restore_parameters", lambda directory: stored[directory.name])
    monkeypatch.setattr(data_pipelines.dataset, "prepare", lambda data: BoardDataset())
    before = (folder / "run" / runner.FILE).read_text()
    assert command.main([f"--workdir={folder / 'run'}", "--split=test", "--only=dci,clusters"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"dci", "actions"}
    assert set(printed["actions"]) == {"clusters"}
    assert (folder / "run" / runner.FILE).read_text() == before
    assert command.main([f"--workdir={folder / 'run'}", "--only=dci,lake"]) == 2
    assert "--only='lake': expected some of rollout, actions," in capsys.readouterr().err


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    assert command.main([f"--workdir={tmp_path}"]) == 1
    assert "no config.json there" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(config.to_json(tiny_config()))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(data_pipelines.dataset, "prepare", lambda data: BoardDataset())
        assert command.main([f"--workdir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert "holds no checkpoint" in error
    assert error.count("\n") == 1
