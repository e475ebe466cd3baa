"""Features of the user's own network: what is stored, what is refused."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data_pipelines
from data_pipelines import DataError, Dataset
from flam_jax.config import ConfigError, default_config, validate
from tests.data_pipelines import features


def configured(source: Path, path: Path, **fields: Any) -> Any:
    config = default_config()
    config.data.update(name="feature_folder", path=str(path), frame_size=(16, 24), clip_length=6, generate_workers=1)
    config.data.feature_folder.update(source=str(source), shape=features.SHAPE)
    config.data.feature_folder.update(fields)
    config.tokenizer.update(encoder="precomputed", decoder="patch", patch_size=4)
    config.dynamics.prediction_steps = 2
    config.evaluation.update(context=2, steps=3)
    for stage in (config.tokenizer, config.dynamics):
        stage.training.window = 4
    return config


def prepare(source: Path, path: Path, **fields: Any) -> Dataset:
    return data_pipelines.prepare(validate(configured(source, path, **fields)).data, show_progress=False)


@pytest.mark.parametrize("stride", [1, 2])
def test_clips_hold_the_frames_and_their_features(stride: int, tmp_path: Path) -> None:
    source = features.write_features(tmp_path / "source", [24] * 11)
    dataset = prepare(source, tmp_path / "data", stride=stride)
    assert dataset.spec.frame_rate == 10 / stride
    assert dataset.card is not None
    seen = 0
    for split in dataset.splits.values():
        for record in (split[i] for i in range(len(split))):
            number = int(dataset.card.sources[int(record["episode"])].split()[-1])
            frames, values = features.video(number, 24)
            taken = np.round(record["seconds"] * 10).astype(int)
            assert set(np.diff(taken)) == {stride}
            np.testing.assert_array_equal(record["frames"], frames[taken])
            np.testing.assert_array_equal(record["features"], values[taken].astype(np.float16))
            seen += 1
    assert seen == 11 * (24 // stride // 6)


def test_arrays_that_do_not_fit_are_named_in_the_data_card(tmp_path: Path) -> None:
    source = features.write_features(tmp_path / "source", [12] * 20)
    folders = sorted(folder.parent for folder in source.glob("*/*/frames.npy"))
    frames, values = features.video(0, 12)
    (folders[0] / "features.npy").unlink()
    np.save(folders[1] / "features.npy", values[:-1])
    np.save(folders[2] / "frames.npy", frames[:, :-1])
    np.save(folders[3] / "frames.npy", frames / 255)
    np.save(folders[4] / "features.npy", values.astype(int))
    values[3, 0, 0, 0] = np.inf
    np.save(folders[5] / "features.npy", values)
    values[3], values[7] = 0, 1e5
    np.save(folders[9] / "features.npy", values)
    (folders[6] / "features.npy").write_bytes(b"")
    (folders[7] / "features.npy").write_bytes(b"\x93NUMPY and nothing more")
    (folders[8] / "features.npy").unlink()
    (folders[8] / "features.npy").symlink_to(folders[10] / "features.npy")
    dataset = prepare(source, tmp_path / "data")
    assert dataset.card is not None
    reasons = {Path(name).name: reason for name, reason in dataset.card.rejected.items()}
    assert reasons == {
        folders[0].name: "features.npy: cannot be read: No such file or directory",
        folders[1].name: "features.npy is float32 [11 4 6 5]: expected floats [12 4 6 5]",
        folders[2].name: "frames.npy is uint8 [12 15 24 3]: expected uint8 [n 16 24 3]",
        folders[3].name: "frames.npy is float64 [12 16 24 3]: expected uint8 [n 16 24 3]",
        folders[4].name: "features.npy is int64 [12 4 6 5]: expected floats [12 4 6 5]",
        folders[5].name: "features.npy: not all features of frame 3 are finite numbers of float16",
        folders[6].name: "features.npy: empty",
        folders[7].name: "features.npy is no array of NumPy that can be read",
        folders[8].name: "features.npy is a link: links are not followed",
    }
    told = ["features.npy: not all features of frame 7 are finite numbers of float16"]  # what comes before it is used
    assert {Path(name).name: notes for name, notes in dataset.card.notes.items()} == {folders[9].name: told}


class Planted:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Planted, "ran", True)


def test_nothing_in_an_array_is_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "video"
    folder.mkdir(parents=True)
    objects = np.empty(3, object)
    objects[:] = [Planted()] * 3
    np.save(folder / "frames.npy", objects, allow_pickle=True)
    (folder / "features.npy").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(DataError, match=r"video: frames\.npy is no array of NumPy that can be read"):
        prepare(tmp_path / "source", tmp_path / "data")
    np.save(folder / "frames.npy", features.video(0, 12)[0])
    with pytest.raises(DataError, match=r"video: features\.npy is no array of NumPy that can be read"):
        prepare(tmp_path / "source", tmp_path / "data")
    assert not Planted.ran


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("data.feature_folder.shape", (4, 6), "3 comma-separated whole numbers from 1 to 4096"),
        ("data.feature_folder.shape", (5, 6, 5), r"as many rows and columns as square patches of data\.frame_size"),
        ("tokenizer.patch_size", 8, "expected 4, as 4 x 6 features of a frame of 16 x 24 pixels are"),
        ("dynamics.cache_codes", True, "expected False: features that the records bring have no codes"),
        ("tokenizer.patches_share", 0.5, "expected 1, unless encoder and decoder are patch"),
        ("data.name", "sprites", "expected another encoder: the records of sprites have no features"),
    ],
)
def test_settings_that_do_not_fit_the_features_are_refused(field: str, value: Any, told: str, tmp_path: Path) -> None:
    config = configured(tmp_path, tmp_path)
    config[field.rsplit(".", 1)[0]].update({field.rsplit(".", 1)[1]: value})
    if field == "data.name":
        config.data.update(frame_size=(64, 64))
        field = "tokenizer.encoder"
    with pytest.raises(ConfigError, match=f"config.{field} = .*{told}"):
        validate(config)
