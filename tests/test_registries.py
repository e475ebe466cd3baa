"""A data set in a folder of its own, or a model in one file, and one line of registry: all else works as it is."""

import html
import json

import pytest

from data_pipelines.registry import DATASETS
from flam_jax import main
from flam_jax.config import default_config, schema, validate
from flam_jax.metrics_file import read_metrics
from flam_jax.models import MODELS, Model
from tests.data_pipelines import driving, features, robots, videos


@pytest.fixture
def dots(monkeypatch):
    monkeypatch.setitem(DATASETS, "dots", "tests.toy.dots.definition")
    yield
    schema.clear_cache()


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setitem(MODELS, "linear", Model("tests.toy.model:build", one_slot=True))
    yield
    schema.clear_cache()


def small(tmp_path, **data):
    config = default_config()
    config.data.update(name="dots", path=str(tmp_path / "data"), frame_size=(16, 24), num_frames=160, clip_length=8)
    config.data.feature_folder.shape = features.SHAPE
    config.tokenizer.update(encoder="patch", decoder="patch", patch_size=4, channels=8, levels=(3, 3))
    config.dynamics.update(num_factors=3, total_action_dim=6, model_dim=8, num_heads=2, num_blocks=1, history=2)
    config.dynamics.update(num_iterations=2, prediction_steps=1)
    for stage in (config.tokenizer, config.dynamics):
        stage.training.update(num_steps=2, batch_size=2, window=3, log_every=1, eval_every=2, checkpoint_every=2)
    config.evaluation.update(context=2, steps=3, num_clips=2, probe_clips=2, batch_size=2, num_pictures=1)
    config.data.update(data)
    return validate(config)


@pytest.mark.long
def test_a_data_set_in_one_folder_trains_evaluates_and_reports(dots, tmp_path):
    assert main.guarded_run(small(tmp_path), tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["dataset"] == "2 dots 16x24"
    assert len(result["rollout"]["psnr"]) == 3
    assert len(result["binding"]["attention"]) == 2
    assert {"position", "move", "true_action"} == set(result["actions"]["leak"])
    # What the dots do not have is said, not guessed.
    assert set(result["not_computed"]) == {
        *("cells", "segmentation", "positions", "entities", "control", "controls"),
        *("actions.direction_aware_clusters", "actions.transfer"),
    }
    assert "2 dots 16x24" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["video_folder", "lerobot 2.1", "lerobot 3.0", "nuplan", "feature_folder"])
def test_data_that_are_read_train_evaluate_and_are_told_in_the_report(kind, tmp_path):
    name, source = kind.split()[0], tmp_path / "source"
    if name == "video_folder":
        videos.write_zoo(source)
    elif name == "feature_folder":
        features.write_features(source, [24] * 11)
    elif name == "nuplan":
        driving.write_nuplan(source)
    else:
        (robots.write_old if "2.1" in kind else robots.write_new)(source, [24] * 11)
    config = small(tmp_path, name=name, num_frames=default_config().data.num_frames)
    config.data[name].source = str(source)
    config.data.lerobot.camera = robots.CAMERAS[0]
    if name == "feature_folder":
        config.tokenizer.encoder = "precomputed"
        config.dynamics.training.accumulate = 2
    assert main.guarded_run(validate(config), tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["data"]["used"] >= 10
    assert len(result["rollout"]["psnr"]) == len(result["rollout"]["feature_error"]) == 3
    known = {"lerobot": {"action_r2", "action_r2_each", "state_r2", "state_r2_each"}}
    known["nuplan"] = {"action_r2", "action_r2_each"}
    assert set(result.get("controls", {})) == known.get(name, set())
    page = (tmp_path / "run" / "report.html").read_text()
    assert str(source) in page
    assert ("R² of a linear regression" in page) == (name in known)
    for rejected, reason in result["data"]["rejected"].items():
        assert html.escape(rejected, quote=False) in page.replace("&#39;", "'"), (rejected, reason)


def test_mistakes_in_its_fields_are_told_like_all_others(dots, tmp_path):
    config = small(tmp_path)
    config.unlock()
    config.data.frame_size = (16, 26)
    with pytest.raises(ValueError, match=r"config\.data\.frame_size = \(16, 26\): expected multiples of 4"):
        validate(config)


@pytest.mark.long
def test_a_model_in_one_file_trains_evaluates_and_reports(dots, linear, tmp_path):
    config = small(tmp_path)
    config.dynamics.name = "linear"
    config.evaluation.update(every=2, clips_in_training=2)
    assert main.guarded_run(config, tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["model"] == "linear"
    assert len(result["actions"]["kl_per_factor"]) == 1
    # Measured in training too.
    logged = read_metrics(tmp_path / "run", "dynamics")
    assert any("evaluation/rollout.psnr_mean" in entry["values"] for entry in logged)
    assert "LINEAR on 2 dots 16x24" in (tmp_path / "run" / "report.html").read_text()
