"""LPIPS and FVD in an evaluation: computed with weights, explained without, and refused when these are broken."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import DatasetSpec
from flam_jax import checkpoints, config
from flam_jax import main as launcher
from flam_jax.config import Config
from flam_jax.evaluation import __main__ as command
from flam_jax.evaluation import evaluate, perceptual, rollouts, runner
from flam_jax.evaluation.networks import NETWORKS, i3d, lpips, weights
from flam_jax.evaluation.networks.frechet import frechet_distance
from flam_jax.evaluation.networks.lpips import Lpips
from flam_jax.evaluation.networks.weights import WeightsError
from flam_jax.training.stages.tokenizer import TokenizerStage
from tests.evaluation.networks import random_weights
from tests.tiny import SIZE, BoardDataset, tiny_config, tiny_model

PREFIXES = ("", "ceiling_", "copy_last_", "median_")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with weights of LPIPS on a thin VGG16 of five layers, and zeros for I3D.

    The smallest model has frames that only VGG16 can see, and at its full width that takes long.
    """
    path = tmp_path_factory.mktemp("weights")
    thin = tuple(lpips.Convolution(n, 8 if n else 3, 8, pool=2 if n else 0, compared=True) for n in range(5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lpips.BACKBONES, "vgg", thin)
        patch.setitem(NETWORKS, "lpips_vgg", lpips.parameter_shapes("vgg"))
        for network, shapes in NETWORKS.items():
            values = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
            if network == "lpips_vgg":
                values = {name: np.abs(random_weights.draw(name, shape)) for name, shape in shapes.items()}
            weights.write(path / f"{network}.npz", network, values)
        yield path


def settings(folder: Path, **changes: Any) -> Config:
    """One context frame and the nine steps that FVD needs, as many as the smallest clips have."""
    found = tiny_config().copy_and_resolve_references().unlock()
    changes = {"weights": str(folder), "lpips_backbone": "vgg", "context": 1, "steps": 9, "num_pictures": 0} | changes
    found.evaluation.update(num_clips=3, batch_size=2)
    found.evaluation.update(changes)
    return config.validate(found)


@pytest.fixture
def quick_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """The colours of a clip's quarters in place of I3D, which is tested by itself and takes seconds a clip."""

    def features(parameters: Any, videos: Any) -> Any:
        assert set(parameters) == set(NETWORKS["i3d"])
        assert videos.dtype == np.uint8
        quarters = np.asarray(videos, np.float32).reshape(len(videos), videos.shape[1], 2, 8, 2, 8, 3)
        colours = quarters.mean(axis=(1, 3, 5)).reshape(len(videos), -1)
        return np.pad(colours, ((0, 0), (0, i3d.CLASSES - colours.shape[1])))

    monkeypatch.setattr(perceptual, "_features", features)


class Frames(BoardDataset):
    """Clips without positions: nothing but rollouts and actions is scored."""

    spec = DatasetSpec("frames", SIZE, SIZE)

    def split(self, name: str) -> list[dict[str, np.ndarray]]:
        return [{"frames": record["frames"]} for record in super().split(name)]


@pytest.mark.usefixtures("quick_features")
def test_with_weights_everything_is_a_number(folder: Path, tmp_path: Path) -> None:
    for stage in ("tokenizer", "dynamics"):
        (tmp_path / stage).mkdir()
        checkpoints.write_finished(tmp_path / stage, 1, 1.0)
    evaluate(settings(folder), tmp_path, Frames(), world_model=tiny_model())
    rollout = json.loads((tmp_path / "evaluation.json").read_text())["rollout"]
    for prefix in PREFIXES:
        assert len(rollout[f"{prefix}lpips"]) == 9
        assert rollout[f"{prefix}lpips_mean"] == pytest.approx(np.mean(rollout[f"{prefix}lpips"]), abs=1e-4)
        assert rollout[f"{prefix}fvd"] > 0
    page = (tmp_path / "report.html").read_text()
    assert f"{rollout['lpips_mean']:.4f}" in page
    assert f"{rollout['median_fvd']:.1f}" in page
    assert "LPIPS (vgg): less is better." in page
    assert "not computed" not in page

    # By hand: the three clips that are chosen, of which the last batch has one.
    clips = np.stack([record["frames"] for record in BoardDataset().split("test")])[[0, 3, 6]]
    assert rollouts.choose(7, 3) == [0, 3, 6]
    true = clips[:, 1:]
    metric = perceptual.load_metrics(settings(folder)).lpips
    assert isinstance(metric, Lpips)
    copied = np.broadcast_to(clips[:, :1], true.shape)
    expected = metric(jnp.asarray(copied / 255.0, jnp.float32), jnp.asarray(true / 255.0, jnp.float32)).mean(axis=0)
    np.testing.assert_allclose(rollout["copy_last_lpips"], expected, atol=1e-4)
    features = [np.asarray(perceptual._features(dict.fromkeys(NETWORKS["i3d"]), x), np.float64) for x in (copied, true)]
    assert rollout["copy_last_fvd"] == pytest.approx(frechet_distance(*features), abs=0.01)
    blank = np.pad(np.full((3, 12), 90.0), ((0, 0), (0, 388)))
    assert rollout["median_fvd"] == pytest.approx(frechet_distance(blank, features[1]), abs=0.01)


def test_true_frames_are_at_no_distance_and_a_shift_in_brightness_is(folder: Path) -> None:
    frames = jnp.asarray(BoardDataset().split("test")[0]["frames"][:3], jnp.float32) / 255.0
    metric = perceptual.load_metrics(settings(folder)).lpips
    assert isinstance(metric, Lpips)
    assert float(metric(frames, frames).max()) == 0.0
    assert float(metric(frames, 0.8 * frames).min()) > 1e-3


def test_without_weights_it_is_said(tmp_path: Path) -> None:
    scores = runner.measure(settings(tmp_path / "nothing"), tiny_model(), Frames(), ["rollout"])[0]["rollout"]
    keys = [f"{prefix}{name}" for prefix in PREFIXES for name in ("lpips", "lpips_mean", "fvd")]
    assert {scores[key] for key in keys} == {"not computed: no weights"}


def test_rollouts_that_the_networks_cannot_see_are_explained(folder: Path) -> None:
    judges = perceptual.load_metrics(settings(folder, lpips_backbone="alex", steps=8))
    small = "not computed: LPIPS (alex) needs frames of at least 31 pixels per side, these have 16x16"
    short = "not computed: I3D needs clips of at least 9 frames, these have 8"
    assert (judges.lpips, judges.i3d) == (small, short)
    one_clip = dict.fromkeys(("true", *rollouts.SOURCES), np.zeros((1, 400)))
    assert perceptual.fvd([one_clip]) == "not computed: FVD needs at least 2 clips"


def test_the_real_features_are_those_of_i3d() -> None:
    """Zeros but for the last bias, so that the wiring is seen: every clip's logits are this bias."""
    parameters = {name: jnp.zeros(shape) for name, shape in NETWORKS["i3d"].items()}
    parameters["logits.bias"] = jnp.arange(i3d.CLASSES, dtype=jnp.float32)
    found = perceptual._features(parameters, jnp.zeros((1, 9, 16, 16, 3), jnp.uint8))
    np.testing.assert_array_equal(found, np.arange(400)[None])


def test_broken_weights_end_a_run_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "weights"
    broken.mkdir()
    (broken / "i3d.npz").write_bytes((folder / "i3d.npz").read_bytes()[:1000])
    line = f"{broken / 'i3d.npz'}: damaged, or no .npz file; expected the weights of i3d"
    # Also where the number would not be computed.
    with pytest.raises(WeightsError, match="damaged"):
        perceptual.load_metrics(settings(broken, steps=4))
    assert launcher.guarded_run(settings(broken), tmp_path / "run") == 1
    assert capsys.readouterr().err == f"flam_jax: {line}\n"
    assert list((tmp_path / "run").iterdir()) == []

    (tmp_path / "run" / "config.json").write_text(config.to_json(settings(broken)))
    monkeypatch.setattr("data_pipelines.prepare", lambda data: BoardDataset())
    monkeypatch.setattr(runner.WorldModel, "restore", lambda workdir: tiny_model())
    assert command.main([f"--workdir={tmp_path / 'run'}"]) == 1
    assert capsys.readouterr().err == f"flam_jax.evaluation: {line}\n"
    with pytest.raises(WeightsError, match="expected a folder"):
        perceptual.load_metrics(settings(folder / "i3d.npz"))


def test_lpips_is_a_term_of_the_tokenizers_loss_where_its_weights_are(folder: Path, tmp_path: Path) -> None:
    found = {}
    for weight, place in ((0.0, folder), (2.0, folder), (2.0, tmp_path)):
        changed = settings(place)
        changed.unlock()
        changed.tokenizer.update(lpips_weight=weight, patches_share=1.0)
        stage = TokenizerStage(changed, BoardDataset(), {})
        batch = {"frames": next(stage.make_loader())["frames"]}
        variables = stage.init(jax.random.key(0), stage.frozen, batch)
        arguments = (stage.frozen, batch, jax.random.key(1), jnp.float32(0))
        (loss, parts), gradient = jax.jit(jax.value_and_grad(stage.loss, has_aux=True))(variables["params"], *arguments)
        values, _ = stage.evaluate(variables, 0, 0.0)
        found[weight, place == folder] = (loss, parts, gradient, values)
    without, with_it, no_weights = found.values()
    assert "lpips" not in without[1]
    assert float(with_it[1]["lpips"]) > 0
    np.testing.assert_allclose(with_it[0], without[0] + 2 * with_it[1]["lpips"], rtol=1e-5)
    assert with_it[3]["validation/lpips"] > 0
    same = jax.tree.map(np.array_equal, without[2], with_it[2])
    assert not all(jax.tree.leaves(same))
    assert float(no_weights[0]) == float(without[0])
    assert jax.tree.all(jax.tree.map(np.array_equal, without[2], no_weights[2]))
