"""Configurations as they are stored: as JSON text, by identity, and compared with another one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.registry import DATASETS
from flam_jax.config.load import override
from flam_jax.config.schema import Config, ConfigError, default_config, fields, get_field
from flam_jax.config.validation import validate

# Of the code whose change changes what a configuration gives: models, tokenizer, losses, training step, evaluation.
# Raised with such a change; a test that pins their outputs says when.
CODE_VERSION = 1


def to_json(config: Config) -> str:
    """The configuration as JSON text, stored beside every checkpoint."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> Config:
    """Rebuilds a configuration from `to_json`, validated.

    A field that is missing came later and takes the value that stands for its absence.

    Raises:
      ConfigError: the text is no configuration, or holds fields that this version does not know.
    """
    try:
        stored = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"config.json: not JSON: {error}") from error
    config = default_config()
    for name, field in fields().items():
        override(config, name, field.before)

    def fill(node: Config, values: Any, prefix: str) -> None:
        if not isinstance(values, dict):
            raise ConfigError(f"config.json: {prefix.rstrip('.') or 'the whole'}: expected a group of fields")
        for key in sorted(set(values) - set(node.keys())):
            raise ConfigError(f"config.json: unknown field {prefix}{key}")
        for key, value in values.items():
            if isinstance(node[key], ConfigDict):
                fill(node[key], value, f"{prefix}{key}.")
            else:
                override(config, f"{prefix}{key}", value)

    fill(config, stored, "")
    return validate(config)


def identity(config: Config) -> str:
    """Twelve hexadecimal digits that name the result of a run.

    A hash of the code's version and of the fields that decide the result, as far as they are not at the value that
    stands for their absence: a field that is added with a default that changes nothing keeps all identities. Of a
    tokenizer that is taken from elsewhere it counts that it is, of a folder of data its name, not where they lie.
    """
    decisive = {}
    for name, field in fields().items():
        value = get_field(config, name)
        if field.decides and value != field.before and not _of_another_dataset(name, config.data.name):
            decisive[name] = _without_place(name, value) if field.folder else value
    text = json.dumps({"code": CODE_VERSION, "fields": decisive}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(stored: Mapping[str, Any], config: Config, stage: str) -> list[tuple[str, Any, Any]]:
    """Fields in which a stage's stored configuration contradicts the one asked for now.

    What may change between two starts in one workdir: the fields that decide nothing (`Field.decides`), `evaluation`,
    and `num_steps` of the stage itself, which may grow. The tokenizer does not depend on `dynamics`; the dynamics
    depend on the tokenizer's configuration.

    Args:
      stored: the tree that `to_json` wrote.
      config: the configuration asked for.
      stage: `tokenizer` or `dynamics`.

    Returns:
      `(dotted name, stored value, new value)` of each. A field that was not stored had the value that stands for its
      absence; `"nothing"` stands for a new value that this version does not know.
    """
    known = fields()
    old = {name: field.before for name, field in known.items()}
    for name, value in _leaves(stored).items():
        try:
            old[name] = known[name].convert(value) if name in known else value
        except (TypeError, ValueError):
            old[name] = value
    sections = ("seed", "data", "tokenizer") if stage == "tokenizer" else ("seed", "data", "tokenizer", "dynamics")
    found = []
    for name in sorted(old):
        free = name in known and not known[name].decides
        if name.split(".")[0] not in sections or free or _of_another_dataset(name, config.data.name):
            continue
        before: Any = old[name]
        now: Any = get_field(config, name) if name in known else "nothing"
        grows = name == f"{stage}.training.num_steps" and isinstance(before, int) and now >= before
        if before != now and not grows:
            found.append((name, before, now))
    return found


def _without_place(name: str, path: str) -> Any:
    return bool(path) if name.endswith("restore_from") else Path(path).name


def _of_another_dataset(name: str, dataset: str) -> bool:
    """Whether a field belongs to a data set that is not the one in use."""
    return name.startswith(tuple(f"data.{other}." for other in DATASETS if other != dataset))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


__all__ = ["CODE_VERSION", "differences", "from_json", "identity", "to_json"]
