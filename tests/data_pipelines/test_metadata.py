"""A data folder of a stranger: what it says is read, compared, and never run."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines import prepare
from data_pipelines.errors import DataError
from data_pipelines.metadata import check_features, record_fields
from data_pipelines.recipe import make_recipe
from data_pipelines.registry import definition, spec_of
from flam_jax.config import default_config

Tree = dict[str, Any]


def small(folder: Path) -> Any:
    config = default_config()
    config.data.update(name="sprites", path=str(folder), frame_size=(32, 32), num_frames=160, clip_length=8)
    config.data.update(generate_workers=1)
    return config.data


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    return prepare(small(folder), show_progress=False).directory


def copied(original: Path, folder: Path) -> tuple[Any, Path]:
    data = small(folder)
    directory = folder / original.relative_to(original.parents[2])
    directory.parent.mkdir(parents=True)
    directory.mkdir()
    for file in original.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return data, directory


def edit(file: Path, change: Callable[[Tree], Any]) -> None:
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))


def test_a_class_that_is_named_as_a_feature_is_not_imported(original: Path, tmp_path: Path) -> None:
    """With TFDS's own reader this would run the module."""
    data, directory = copied(original, tmp_path / "data")
    (tmp_path / "hostile_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Tensor: pass\n")
    code = (
        "import sys, pickle; sys.path.insert(0, sys.argv[1])\n"
        "from tests.data_pipelines.test_metadata import small\n"
        "import data_pipelines, pathlib\n"
        "data_pipelines.prepare(small(pathlib.Path(sys.argv[2])), show_progress=False)\n"
    )
    changed = {"pythonClassName": "hostile_module.Tensor"}
    for change in (
        lambda tree: tree["featuresDict"]["features"]["frames"].update(changed),
        lambda t: t.update(changed),
    ):
        edit(directory / "features.json", change)
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), data.path],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert "pythonClassName" in done.stderr.splitlines()[-1]
        assert not (tmp_path / "ran").exists()


FEATURES: dict[str, Callable[[Tree], Any]] = {
    "pythonClassName of frames": lambda t: t["frames"].update(pythonClassName="os.system"),
    "encoding of actions": lambda t: t["actions"]["tensor"].update(encoding="zlib"),
    "dtype of masks": lambda t: t["masks"]["tensor"].update(dtype="object"),
    "shape of frames": lambda t: t["frames"]["tensor"]["shape"].update(dimensions=["8", "999999", "999999", "3"]),
    "no field 'actions'": lambda t: t.pop("actions"),
    "an unknown field 'more'": lambda t: t.update(more=t["frames"]),
    "no 'tensor'": lambda t: t["frames"].update(tensor=[1]),
}
INFO: dict[str, Callable[[Tree], Any]] = {
    "name is 'other'": lambda t: t.update(name="other"),
    "fileFormat is 'tfrecord'": lambda t: t.update(fileFormat="tfrecord"),
    "no list of splits": lambda t: t.update(splits={}),
    "is no name of a split": lambda t: t["splits"][0].update(name="../../elsewhere"),
    "filepathTemplate of train": lambda t: t["splits"][0].update(filepathTemplate="/etc/{SPLIT}"),
    "shardLengths of train": lambda t: t["splits"][0].update(shardLengths=["1" * 30]),
    "has the splits train, val, not": lambda t: t["splits"].pop(),
}


@pytest.mark.parametrize("expected", [*FEATURES, *INFO])
def test_a_description_that_is_not_written_here_is_one_line(expected: str, original: Path, tmp_path: Path) -> None:
    data, directory = copied(original, tmp_path)
    if expected in FEATURES:
        edit(directory / "features.json", lambda tree: FEATURES[expected](tree["featuresDict"]["features"]))
    else:
        edit(directory / "dataset_info.json", INFO[expected])
    with pytest.raises(DataError) as error:
        prepare(data, show_progress=False)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert str(directory) in str(error.value)


BROKEN = {
    "empty": "",
    "list": "[]",
    "null": "null",
    "deep": "[" * 100_000,
    "latin": "\xff",
    "number": '{"featuresDict": 3}',
    "long": " " * 5_000_000,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_description_that_is_no_object_is_one_line(name: str, text: str, original: Path, tmp_path: Path) -> None:
    data, directory = copied(original, tmp_path)
    (directory / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=f"not a whole data set.*{name}"):
        prepare(data, show_progress=False)


@pytest.mark.parametrize("name", ["multigrid", "procgen", "sprites"])
def test_fields_are_those_that_tfds_writes_and_reads(name: str, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    from data_pipelines.builder import stored_features

    config = default_config()
    config.data.update(name=name, frame_size=(64, 64), num_frames=160, clip_length=8)
    data = config.data
    recipe, spec = make_recipe(data, definition(name).variant(data)), spec_of(data)
    features = stored_features(recipe, spec)
    features.save_config(str(tmp_path))
    fields = record_fields(recipe, spec)
    check_features(tmp_path, fields)
    again = tfds.features.FeaturesDict.from_config(str(tmp_path))
    assert {key: (tuple(one.shape), np.dtype(one.np_dtype)) for key, one in again.items()} == {
        key: (field.shape, field.dtype) for key, field in fields.items()
    }
