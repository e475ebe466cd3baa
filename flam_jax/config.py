"""Configurations: loaded from an experiment file, overridden by field, stored as JSON, compared.

A configuration is an `ml_collections.ConfigDict` tree, locked so that a misspelt field cannot pass. It is made by a
file in `experiments/` that starts from `default_config()` and edits it. The tree stops at the `build_*` functions of
`flam_jax.build`: modules take plain fields and never see a configuration. The fields stand in `flam_jax.schema`.
"""

import difflib
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flam_jax.messages import brief, cut
from flam_jax.schema import (
    CHOICES,
    Config,
    ConfigError,
    default_config,
    defaults,
    describe_type,
    field_names,
    get_field,
    validate,
)


def load_config(path: str | Path, arguments: str = "", overrides: dict[str, Any] | None = None) -> Config:
    """Loads and validates `get_config(arguments)` of an experiment file.

    Args:
      path: an experiment file, for example `experiments/multigrid.py`. `path:arguments` is understood too.
      arguments: comma-separated variant and preset, for example `"cpu"` or `"bigfish,cpu"`.
      overrides: values by dotted field name, for example `{"data.seed": 1}`.

    Returns:
      The locked, validated configuration.

    Raises:
      ConfigError: the file, an argument or a field is wrong.
    """
    path, _, inline = str(path).partition(":")
    shown = cut(path) or "''"
    if os.path.isdir(path):
        raise ConfigError(f"--config: {shown} is a folder, expected a Python file")
    if not os.path.isfile(path):
        raise ConfigError(f"--config: no such file: {shown}")
    spec = importlib.util.spec_from_file_location(f"flam_jax_experiment_{Path(path).stem}", path)
    if spec is None or spec.loader is None or not path.endswith(".py"):
        raise ConfigError(f"--config: {shown} is not a Python file")
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(arguments or inline)
        if type(config) is not ConfigDict:  # a frozen one cannot be changed
            raise ConfigError(f"--config: get_config of {shown} returns {type(config).__name__}, expected a ConfigDict")
        field_names(config)  # a value may be required and not there
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        first_line = (str(error).splitlines() or [""])[0][:160]
        raise ConfigError(f"--config: {shown} does not load: {type(error).__name__}: {first_line}") from error
    for name, value in (overrides or {}).items():
        override(config, name, value)
    return validate(config)


def override(config: Config, name: str, value: Any) -> None:
    """Sets one field by its dotted name; text is converted to the field's type.

    Raises:
      ConfigError: there is no such field (the message names the nearest one) or the value is of another type.
    """
    there = set(field_names(config))
    known = [field for field in field_names(defaults()) if field in there]
    if name not in known:
        inside = [field for field in known if field.startswith(f"{name}.")]
        if inside:
            raise ConfigError(f"config.{name} is a group of fields, such as config.{inside[0]}")
        raise ConfigError(f"config.{cut(name)}: no such field; the nearest is config.{_nearest(name, known)}")
    *parents, leaf = name.split(".")
    node = get_field(config, ".".join(parents)) if parents else config
    default = get_field(defaults(), name)  # what an experiment has put there may be of any type
    try:
        value = _convert(value, default) if isinstance(value, str) else value
        if isinstance(value, bool) != isinstance(default, bool):  # Python takes a bool for a number
            raise TypeError(value)
        node[leaf] = value
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"config.{name} = {brief(value)}: expected {describe_type(default)}") from error


def _nearest(name: str, known: Sequence[str]) -> str:
    """The known name most like it; one that ends alike wins over one that only begins alike."""
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [field for field in known if field.rsplit(".", 1)[-1] == leaf]
    return difflib.get_close_matches(name, same_leaf or known, n=1, cutoff=0.0)[0]


def _convert(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(default, tuple):
        return tuple(int(item) for item in text.strip("()[] ").split(",") if item.strip())
    return type(default)(text)


def parse_arguments(
    text: str, variants: Sequence[str], presets: Sequence[str] = ("cpu", "debug"), *more: Sequence[str]
) -> tuple[str, ...]:
    """Reads an experiment's argument text: at most one word of each group, in any order.

    Args:
      text: words, comma-separated.
      variants: the first group, whose first word is the default.
      presets: the second group.
      more: further groups.

    Returns:
      One word for every group: `(variant, preset, ...)`; `""` where none is named, of the presets the paper's setting.

    Raises:
      ConfigError: an unknown or repeated word.
    """
    groups = (variants, presets, *more)
    found = [""] * len(groups)
    for word in filter(None, text.split(",")):
        index = next((i for i, group in enumerate(groups) if word in group and not found[i]), None)
        if index is None:
            choices = " and ".join(f"at most one of {', '.join(group)}" for group in groups)
            raise ConfigError(f"config argument {brief(word)}: expected {choices}")
        found[index] = word
    return found[0] or variants[0], *found[1:]


def to_json(config: Config) -> str:
    """The configuration as JSON text, stored beside every checkpoint."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> Config:
    """Rebuilds a configuration from `to_json`, validated.

    A field that is missing came later and takes its default, which is what was done before there was the field.

    Raises:
      ConfigError: the text is no configuration, or holds fields that this version does not know.
    """
    try:
        stored = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"config.json: not JSON: {error}") from error
    config = default_config()

    def fill(node: Config, values: Any, prefix: str) -> None:
        if not isinstance(values, dict):
            raise ConfigError(f"config.json: {prefix.rstrip('.') or 'the whole'}: expected a group of fields")
        for key in sorted(set(values) - set(node.keys())):
            raise ConfigError(f"config.json: unknown field {prefix}{key}")
        for key, value in values.items():
            if isinstance(node[key], ConfigDict):
                fill(node[key], value, f"{prefix}{key}.")
            else:
                override(config, f"{prefix}{key}", tuple(value) if isinstance(value, list) else value)

    fill(config, stored, "")
    return validate(config)


def config_hash(config: Config) -> str:
    """Twelve hexadecimal digits that name the configuration."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:12]


# Fields that say where and how fast a run goes, not what comes out of it; and what it does about damaged data, so that
# a run that they have stopped can go on without them. With whole data that changes nothing.
_FREE = (
    "data.path",
    "data.generate_workers",
    "data.loader_workers",
    "data.on_corrupt",
    "training.on_nonfinite",  # a run that was stopped may go on with the other way
    "training.rematerialize",  # another machine may have less memory
    "training.log_every",
    "training.eval_every",
    "training.checkpoint_every",
    "training.checkpoints_kept",
)


def differences(stored: Mapping[str, Any], config: Config, stage: str) -> list[tuple[str, Any, Any]]:
    """Fields in which a stage's stored configuration contradicts the one asked for now.

    What may change between two starts in one workdir: `mesh`, `evaluation`, where data lie, how many processes make or
    read them and what is done about damaged ones or about numbers that are not finite, what is computed again for the
    gradient, how often is logged, evaluated and saved, and `num_steps` of the stage itself, which may grow. The
    tokenizer does not depend on `dynamics`; the dynamics depend on the tokenizer's configuration.

    Args:
      stored: the tree that `to_json` wrote.
      config: the configuration asked for.
      stage: `tokenizer` or `dynamics`.

    Returns:
      `(dotted name, stored value, new value)` of each. A field that was not stored had its default; `"nothing"` stands
      for a new value that this version does not know.
    """
    old, new = (_leaves(json.loads(to_json(tree))) for tree in (default_config(), config))
    old |= _leaves(stored)
    sections = ("seed", "data", "tokenizer") if stage == "tokenizer" else ("seed", "data", "tokenizer", "dynamics")
    other_data = tuple(f"data.{name}." for name in CHOICES["data.name"] if name != config.data.name)
    found = []
    for name in sorted({*old, *new}):
        if name.split(".")[0] not in sections or name.endswith(_FREE) or name.startswith(other_data):
            continue
        before, now = old[name], new.get(name, "nothing")
        grows = name == f"{stage}.training.num_steps" and isinstance(before, int) and now >= before
        if before != now and not grows:
            found.append((name, before, now))
    return found


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


__all__ = [
    "Config",
    "ConfigError",
    "config_hash",
    "default_config",
    "differences",
    "field_names",
    "from_json",
    "load_config",
    "override",
    "parse_arguments",
    "to_json",
    "validate",
]
