"""What a user writes as a path is one, or is refused by name; names that look like patterns are names."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines import prepare
from data_pipelines.fields import folder
from data_pipelines.paths import describe_problem, expand_path
from data_pipelines.recipe import make_recipe
from flam_jax.checkpoints import restore_parameters
from flam_jax.config import ConfigError, default_config, load_config, validate
from flam_jax.training.trainer import train
from tests.data_pipelines.conftest import data_config
from tests.training.stand_in import TinyStage, tiny_config

STRANGE = "a [x] * ?{b} #%20 ü"
ADDRESSES = ("gs://bucket/data", "s3://bucket", "file:///data", "https://host/data")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_path("~/data") == f"{tmp_path}/data"
    assert expand_path("data/~") == "data/~"
    on_a_command_line = load_config("multigrid", "debug", {"data.path": "~/data"})
    in_an_experiment = default_config()
    in_an_experiment.data.path = "~/data"
    assert on_a_command_line.data.path == validate(in_an_experiment).data.path == f"{tmp_path}/data"


@pytest.mark.parametrize("path", [*ADDRESSES, "None", "null", "~nobody_of_that_name/data", "", " ", "a\0b", "a" * 256])
def test_what_is_no_path_is_refused(path: str) -> None:
    assert describe_problem(path).startswith("a folder")
    with pytest.raises(ConfigError, match=r"^config\.data\.path = .*: expected a folder"):
        load_config("multigrid", "debug", {"data.path": path})


@pytest.mark.parametrize("path", ["data", "./None", "a b", STRANGE, "/a:b", "a//b", "data/~"])
def test_other_names_are_paths(path: str) -> None:
    assert describe_problem(path) == ""


def test_empty_is_a_path_only_where_none_is_needed() -> None:
    assert folder("data", "needed").expected("") == "a folder"
    assert folder("", "not needed").expected("") == ""
    assert folder("", "not needed").expected("none").endswith("or empty for none")


def test_an_address_of_an_experiment_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--config='gs://bucket/a\.py:cpu': expected a Python file of this machine"):
        load_config("gs://bucket/a.py:cpu")


@pytest.mark.parametrize("word", ["../../elsewhere", "/absolute", "..", "a/b", "[x]*", "~"])
def test_a_path_in_a_recipe_stays_in_the_folder_of_the_data(word: str, tmp_path: Path) -> None:
    data = data_config(tmp_path)
    labels = [make_recipe(data, {"source": text}).label for text in (word, f"{word} ")]
    for label in labels:
        assert (tmp_path / label).resolve().parent == tmp_path.resolve()
        assert not set(label) & set("/*[]~")
    assert labels[0] != labels[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_records_in_a_folder_with_a_strange_name_are_found(tmp_path: Path, workers: int) -> None:
    data = data_config(tmp_path / STRANGE, generate_workers=workers)
    made = prepare(data, show_progress=False)
    found = prepare(data, show_progress=False)
    assert made.directory == found.directory
    assert made.directory.is_relative_to(tmp_path / STRANGE)
    np.testing.assert_array_equal(made.split("test")[1]["frames"], found.split("test")[1]["frames"])


def test_checkpoints_in_a_workdir_with_a_strange_name_are_found(tmp_path: Path) -> None:
    workdir = tmp_path / STRANGE
    trained = train(TinyStage(), tiny_config(num_steps=8), workdir)
    restored = restore_parameters(workdir / "tokenizer")
    np.testing.assert_array_equal(restored["out"]["kernel"], trained["params"]["out"]["kernel"])
    longer = train(TinyStage(), tiny_config(num_steps=12), workdir)  # goes on from the checkpoint
    assert not np.array_equal(longer["params"]["out"]["kernel"], trained["params"]["out"]["kernel"])
