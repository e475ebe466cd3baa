"""The configuration: what a mistake is told to be, and what stays the same. A thousand are in `tests/bad_input/`."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.fields import number
from flam_jax.config import (
    ConfigError,
    default_config,
    differences,
    fields,
    from_json,
    get_field,
    groups,
    identity,
    load_config,
    override,
    parse_arguments,
    schema,
    to_json,
    validate,
)

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))


def change(config: Any, name: str, value: Any) -> None:
    """What a command line does: one field, then all checks."""
    override(config, name, value)
    validate(config)


def message(error: pytest.ExceptionInfo[ConfigError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
@pytest.mark.parametrize("preset", ["", "cpu", "debug"])
def test_every_experiment_loads_and_survives_json(file: Path, preset: str) -> None:
    config = load_config(file, preset)
    again = from_json(to_json(config))
    assert again == config
    assert identity(again) == identity(config)
    assert load_config(f"{file}:{preset}") == config


WRONG = [
    ("seed", "1.5", "expected a whole number"),
    ("seed", "-1", "expected a number from 0 to 4294967295"),
    ("seed", "true", "expected a whole number"),
    ("mesh.data", "0", "expected a number of devices"),
    ("mesh.fsdp", "-1", "expected at most one -1"),
    ("data.name", "atari", "expected one of multigrid, procgen"),
    ("data.path", " ", "expected a folder"),
    ("data.on_corrupt", "ignore", "expected one of stop, skip"),
    ("data.frame_size", "130", "expected a multiple of data.multigrid.grid_size = 8"),
    ("data.frame_size", "8", "expected a number from 16 to 4096"),
    ("data.num_frames", "300", "expected 10 clips"),
    ("data.clip_length", "6", "to be at most data.clip_length = 6"),
    ("data.multigrid.num_agents", "17", "expected a number from 1 to 16"),
    ("data.multigrid.shared_actions", "1", "expected 0, or from 2 to num_agents = 4"),
    ("data.multigrid.shared_actions", "5", "expected 0, or from 2 to num_agents = 4"),
    ("data.procgen.game", "coinrun", "expected one of bigfish, leaper, starpilot"),
    ("tokenizer.encoder", "vit", "expected one of impala, patch"),
    ("tokenizer.patch_size", "7", "expected a divisor of data.frame_size = 128,128"),
    ("tokenizer.levels", "4,x", "expected comma-separated whole numbers"),
    ("tokenizer.levels", "4,1", "expected 1 to 256 whole numbers"),
    ("tokenizer.levels", "", "expected 1 to 256 whole numbers"),
    ("tokenizer.levels", "256,257", "expected 1 to 256 whole numbers from 2 to 256"),
    ("tokenizer.temporal_kernel", "3", "expected 1, unless tokenizer.encoder is magvit"),
    ("tokenizer.patches_share", "0.5", "expected 1, unless encoder and decoder are patch"),
    ("tokenizer.lpips_weight", "-1", "expected a number from 0"),
    ("tokenizer.patches_share", "0", "expected a number from 0.001 to 1"),
    ("tokenizer.change_weight", "-1", "expected a number from 0 to 1000000000"),
    ("tokenizer.change_weight", "nan", "expected a number from 0 to 1000000000"),
    ("tokenizer.change_weight", "much", "expected a number"),
    ("tokenizer.training.dtype", "float16", "expected one of float32, bfloat16"),
    ("tokenizer.training.schedule", "linear", "expected one of constant, cosine"),
    ("tokenizer.training.window", "33", "expected at most data.clip_length = 32"),
    ("dynamics.num_factors", "3", "expected a multiple of dynamics.num_factors = 3"),
    ("dynamics.num_heads", "7", "expected a divisor of dynamics.model_dim = 256"),
    ("dynamics.cache_codes", "yes", "expected true or false"),
    ("dynamics.cache_codes", "1", "expected true or false"),
    ("dynamics.prediction_steps", "10", "expected more than dynamics.prediction_steps = 10"),
    ("dynamics.training.num_steps", "1e5", "expected a whole number"),
    ("dynamics.training.warmup_steps", "200000", "expected less than dynamics.training.num_steps = 200000"),
    ("dynamics.training.learning_rate", "0", "expected a number from 1e-12 to 10"),
    ("evaluation.weights", "", "expected a folder"),
    ("evaluation.every", "3000", "expected a multiple of dynamics.training.eval_every = 2000"),
    ("evaluation.lpips_backbone", "squeeze", "expected one of alex, vgg"),
    ("evaluation.steps", "28", "context + steps = 33 to be at most data.clip_length = 32"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_wrong_value_is_named_with_what_was_expected(name: str, value: str, expected: str) -> None:
    config = default_config()
    with pytest.raises(ConfigError) as error:
        change(config, name, value)
    text = message(error)
    assert text.startswith("config.")
    assert expected in text


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"patches_share": 0.5, "lpips_weight": 0.0}, "adversarial_weight"),
        ({"patch_size": 25}, "patch_size"),
        ({"adversarial_start": 1.0}, "adversarial_start"),
        ({"adversarial_start": 0.99, "training.num_steps": 100, "training.warmup_steps": 1}, "adversarial_start"),
    ],
)
def test_an_adversarial_loss_that_cannot_work_is_refused(fields: dict[str, Any], name: str) -> None:
    config = default_config()
    config.data.update(name="sprites", frame_size=(100, 100))
    config.tokenizer.update(encoder="patch", decoder="patch", patch_size=4)
    for field, value in fields.items():
        override(config, f"tokenizer.{field}", value)
    validate(config)
    with pytest.raises(ConfigError, match=rf"config\.tokenizer\.{name} = "):
        change(config, "tokenizer.adversarial_weight", 0.1)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("dynamics.num_factor", "dynamics.num_factors"),
        ("dynamic.num_factors", "dynamics.num_factors"),
        ("num_agents", "data.multigrid.num_agents"),
        ("tokeniser.channels", "tokenizer.channels"),
        ("dynamics.training.lr", "dynamics.training"),
        ("seed.x", "seed"),
        ("", ""),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(default_config(), name, 1)
    assert "no such field; the nearest is config." + nearest in message(error)


def test_text_becomes_the_type_of_the_field() -> None:
    config = default_config()
    for name, text, value in [
        ("seed", "1_000", 1000),
        ("tokenizer.levels", "(8, 5)", (8, 5)),
        ("tokenizer.levels", "8,5,", (8, 5)),
        ("dynamics.kl_weight", "1e-3", 1e-3),
        ("dynamics.kl_weight", "1", 1.0),
        ("dynamics.cache_codes", "True", True),
        ("data.path", "3", "3"),
    ]:
        override(config, name, text)
        assert get_field(config, name) == value
        assert type(get_field(config, name)) is type(value)


def test_the_tree_is_locked() -> None:
    config = load_config(EXPERIMENTS[0])
    with pytest.raises((AttributeError, KeyError)):
        config.dynamics.num_factor = 3


@pytest.mark.parametrize(
    ("text", "result"),
    [("", ("a", "")), ("cpu", ("a", "cpu")), ("b,debug", ("b", "debug")), ("debug,b", ("b", "debug"))],
)
def test_arguments_of_an_experiment(text: str, result: tuple[str, str]) -> None:
    assert parse_arguments(text, ("a", "b")) == result


def test_arguments_of_an_experiment_with_another_group_of_words() -> None:
    groups = (("a", "b"), ("cpu",), ("x", "y"))
    assert parse_arguments("y,cpu,b", *groups) == ("b", "cpu", "y")
    assert parse_arguments("cpu", *groups) == ("a", "cpu", "")
    with pytest.raises(ConfigError, match="and at most one of cpu and at most one of x, y"):
        parse_arguments("x,y", *groups)


@pytest.mark.parametrize("text", ["c", "a,b", "cpu,debug", "cpu,cpu", "CPU"])
def test_wrong_arguments_of_an_experiment(text: str) -> None:
    with pytest.raises(ConfigError, match="expected at most one of a, b and at most one of cpu, debug"):
        parse_arguments(text, ("a", "b"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tree: tree["data"].update(new=1), "unknown field data.new"),
        (lambda tree: tree.update(tokenizer=3), "config.json: tokenizer: expected a group of fields"),
        (lambda tree: tree.update(seed="x"), "seed"),
        (lambda tree: tree.update(seed=None), "seed"),
    ],
)
def test_a_stored_configuration_of_another_version(change: Any, expected: str) -> None:
    tree = json.loads(to_json(default_config()))
    change(tree)
    with pytest.raises(ConfigError) as error:
        from_json(json.dumps(tree))
    assert expected in message(error)


def test_a_field_that_came_later_has_its_default_in_older_configurations() -> None:
    config = default_config()
    config.seed = 5
    tree = json.loads(to_json(config))
    del tree["dynamics"]["training"]["accumulate"]
    assert to_json(from_json(json.dumps(tree))) == to_json(config)
    assert differences(tree, config, "dynamics") == []
    config.dynamics.training.accumulate = 2
    assert differences(tree, config, "dynamics") == [("dynamics.training.accumulate", 1, 2)]
    tree["dynamics"]["gone"] = 3
    assert ("dynamics.gone", 3, "nothing") in differences(tree, config, "dynamics")


def test_an_experiment_is_found_by_its_name_where_a_folder_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nuplan").mkdir()
    assert load_config("nuplan", "debug").data.name == "nuplan"


def test_the_identity_of_a_run_is_of_what_decides_its_result() -> None:
    """Where and how fast it runs does not count, nor does a field of another data set."""
    config = load_config("multigrid", "cpu")
    named = identity(config)
    for name, value in [
        ("data.path", "elsewhere"),
        ("mesh.fsdp", 2),
        ("dynamics.training.log_every", 7),
        ("dynamics.training.checkpoint_every", 7),
        ("evaluation.num_pictures", 1),
        ("data.procgen.game", "leaper"),
    ]:
        override(config, name, value)
        assert identity(config) == named, name
    for name, value in [("seed", 1), ("dynamics.kl_weight", 1e-2), ("data.multigrid.num_agents", 2)]:
        override(config, name, value)
        assert identity(config) != named, name
        named = identity(config)
    override(config, "tokenizer.restore_from", "runs/a")
    taken = identity(config)
    override(config, "tokenizer.restore_from", "elsewhere/b")
    assert identity(config) == taken != named


def test_a_field_that_is_added_at_its_default_keeps_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("multigrid", "cpu")
    named = identity(config)
    monkeypatch.setitem(groups.DYNAMICS, "new_field", number(0.5, "of nothing"))
    schema.clear_cache()
    try:
        config.unlock()
        config.dynamics.new_field = 0.5
        assert identity(config) == named
        config.dynamics.new_field = 0.25
        assert identity(config) != named
    finally:
        monkeypatch.undo()
        schema.clear_cache()


def test_a_default_that_changes_says_what_was_done_before() -> None:
    """Else runs of the old default and of the new one have one identity. Give the field `absent=` its old default; a
    new field is added to the file with the value that changes nothing.
    """
    known = json.loads((Path(__file__).parent / "values_before_a_field.json").read_text(encoding="utf-8"))
    now = {name: field.before for name, field in fields().items() if field.decides}
    assert json.loads(json.dumps(now)) == known


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_stored_configuration_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        from_json(text)


@pytest.mark.parametrize(
    ("stage", "name", "value", "differs"),
    [
        ("tokenizer", "tokenizer.channels", 64, True),
        ("tokenizer", "dynamics.num_heads", 4, False),
        ("dynamics", "dynamics.num_heads", 4, True),
        ("dynamics", "tokenizer.channels", 64, True),
        ("dynamics", "dynamics.training.num_steps", 300_000, False),
        ("dynamics", "dynamics.training.num_steps", 100_000, True),
        ("dynamics", "tokenizer.training.num_steps", 300_000, True),
        ("tokenizer", "tokenizer.training.num_steps", 300_000, False),
        ("dynamics", "evaluation.num_clips", 3, False),
        ("dynamics", "mesh.fsdp", 2, False),
        ("dynamics", "data.path", "elsewhere", False),
        ("dynamics", "data.loader_workers", 4, False),
        ("dynamics", "data.on_corrupt", "skip", False),
        ("dynamics", "data.seed", 4, True),
        ("dynamics", "data.procgen.game", "leaper", False),
        ("dynamics", "tokenizer.training.log_every", 3, False),
        ("tokenizer", "seed", 3, True),
    ],
)
def test_what_may_change_in_a_workdir(stage: str, name: str, value: Any, differs: bool) -> None:
    stored = json.loads(to_json(default_config()))
    config = default_config()
    override(config, name, value)
    found = differences(stored, config, stage)
    assert [field for field, _, _ in found] == ([name] if differs else [])
