"""The tree of all fields: its defaults as a configuration, and the field behind a dotted name."""

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from data_pipelines.fields import Field, Group, leaves
from data_pipelines.registry import DATASETS
from flam_jax.config.groups import all_groups
from flam_jax.models import MODELS

if TYPE_CHECKING:
    Config = Any  # static checkers cannot know the types of its fields
else:
    Config = ConfigDict


class ConfigError(ValueError):
    """A configuration that cannot work. The message names the field, its value and what was expected."""


def default_config() -> Config:
    """The whole tree with the paper's settings where it states them (PAPER: settings known)."""
    return ConfigDict(_defaults(_groups(_registered())))


def fields() -> Mapping[str, Field]:
    """Every field by its dotted name."""
    return _fields(_registered())


def field_names(config: Config) -> list[str]:
    """Dotted names of all leaves."""
    names = []
    for key, value in config.items():
        names += [f"{key}.{name}" for name in field_names(value)] if isinstance(value, ConfigDict) else [str(key)]
    return names


def get_field(config: Config, name: str) -> Any:
    """The value at a dotted name."""
    node: Any = config
    for part in name.split("."):
        node = node[part]
    return node


def steps_of(span: tuple[float, float], num_steps: int) -> tuple[int, int]:
    """The first step of a span of training, and the one after its last: those with `first <= step / num_steps < last`.

    Args:
      span: shares of the training between which something is trained.
      num_steps: of the whole training.
    """
    first, last = (math.ceil(round(share * num_steps, 6)) for share in span)  # 0.7 of 10 steps would be 8
    return first, last


def _registered() -> tuple[str, ...]:
    """Of what the tree depends on: each data set adds a group, each model a choice."""
    return (*DATASETS, *MODELS)


@functools.cache
def _groups(registered: tuple[str, ...]) -> Group:
    del registered
    return all_groups()


@functools.cache
def _fields(registered: tuple[str, ...]) -> dict[str, Field]:
    return dict(leaves(_groups(registered)))


def clear_cache() -> None:
    """Forgets the tree, for tests that change what is declared."""
    _groups.cache_clear()
    _fields.cache_clear()


def _defaults(group: Group) -> dict[str, Any]:
    return {name: member.default if isinstance(member, Field) else _defaults(member) for name, member in group.items()}


__all__ = ["Config", "ConfigError", "default_config", "field_names", "fields", "get_field", "steps_of"]
