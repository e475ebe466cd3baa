"""Configurations from experiment files, changed by field.

An experiment is a Python file with `get_config(arguments)`, which starts from `default_config()` and edits it. The tree
is locked, so that a misspelt field cannot pass. It stops at the `build_*` functions of `flam_jax.build`: modules take
plain fields and never see a configuration.
"""

import difflib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.paths import describe_problem, expand_path, is_url
from flam_jax.config.schema import Config, ConfigError, field_names, fields, get_field
from flam_jax.config.validation import validate
from flam_jax.messages import short_repr, truncate

_NO_ARGUMENT = "?"  # a word that no experiment knows


class ArgumentError(ConfigError):
    """A word that an experiment does not know.

    Attributes:
      variants, presets: the words that it knows.
    """

    def __init__(self, message: str, variants: tuple[str, ...] = (), presets: tuple[str, ...] = ()):
        super().__init__(message)
        self.variants, self.presets = variants, presets


def find_experiment(path: str) -> str:
    """The file that a user means: a path, or the name of one of the experiments that come with the package.

    Raises:
      ConfigError: there is no such file.
    """
    path = expand_path(path)
    if os.path.isfile(path):
        return path
    shown = truncate(path) or "''"
    name = path.removeprefix("experiments/").removesuffix(".py")
    known = {file.stem: file for file in experiments()}
    if name in known:  # also where a folder, perhaps of data, has that name
        return str(known[name])
    if os.path.isdir(path):
        raise ConfigError(f"--config: {shown} is a folder, expected a Python file")
    raise ConfigError(f"--config: no such file: {shown}; experiments by name: {', '.join(known)}")


def experiments() -> list[Path]:
    """Files of the experiments that come with the package: installed in it, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "experiments", package.parent / "experiments"):
        if folder.is_dir():
            return sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))
    return []


def load_config(path: str | Path, arguments: str = "", overrides: dict[str, Any] | None = None) -> Config:
    """Loads and validates `get_config(arguments)` of an experiment file.

    Args:
      path: an experiment file, for example `experiments/multigrid.py`, or the name of one that comes with the package,
        for example `multigrid`. `path:arguments` is understood too.
      arguments: comma-separated variant and preset, for example `"cpu"` or `"bigfish,cpu"`.
      overrides: values by dotted field name, for example `{"data.seed": 1}`.

    Returns:
      The locked, validated configuration.

    Raises:
      ConfigError: the file, an argument or a field is wrong.
    """
    if is_url(str(path)):
        raise ConfigError(f"--config={short_repr(str(path))}: expected {describe_problem(str(path), 'a Python file')}")
    path, _, inline = str(path).partition(":")
    shown = truncate(path) or "''"
    module = _load_module(path, shown)
    try:
        config = module.get_config(arguments or inline)
        if type(config) is not ConfigDict:  # a frozen one cannot be changed
            raise ConfigError(f"--config: get_config of {shown} returns {type(config).__name__}, expected a ConfigDict")
        field_names(config)  # a value may be required and not there
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise _does_not_load(shown, error) from error
    for name, value in (overrides or {}).items():
        override(config, name, value)
    return validate(config)


def describe_arguments(path: str | Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The first line of an experiment's docstring, its variants and its presets.

    Raises:
      ConfigError: the file does not load.
    """
    module = _load_module(str(path), truncate(str(path)))
    title = (module.__doc__ or "").strip().partition("\n")[0]
    try:
        module.get_config(_NO_ARGUMENT)
    except ArgumentError as error:
        return title, error.variants, error.presets
    except Exception:  # it reads its arguments by other means than `parse_arguments`
        pass
    return title, (), ()


def _load_module(path: str, shown: str) -> ModuleType:
    path = find_experiment(path)
    spec = importlib.util.spec_from_file_location(f"flam_jax_experiment_{Path(path).stem}", path)
    if spec is None or spec.loader is None or not path.endswith(".py"):
        raise ConfigError(f"--config: {shown} is not a Python file")
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise _does_not_load(shown, error) from error
    return module


def _does_not_load(shown: str, error: BaseException) -> ConfigError:
    first_line = (str(error).splitlines() or [""])[0][:160]
    return ConfigError(f"--config: {shown} does not load: {type(error).__name__}: {first_line}")


def override(config: Config, name: str, value: Any) -> None:
    """Sets one field by its dotted name; text is converted to the field's type.

    Raises:
      ConfigError: there is no such field (the message names the nearest one) or the value is of another type.
    """
    there = set(field_names(config))
    known = [field for field in fields() if field in there]
    if name not in known:
        inside = [field for field in known if field.startswith(f"{name}.")]
        if inside:
            raise ConfigError(f"config.{name} is a group of fields, such as config.{inside[0]}")
        raise ConfigError(f"config.{truncate(name)}: no such field; the nearest is config.{_nearest(name, known)}")
    *parents, leaf = name.split(".")
    node = get_field(config, ".".join(parents)) if parents else config
    field = fields()[name]
    try:
        node[leaf] = field.convert(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"config.{name} = {short_repr(value)}: expected {field.describe_type()}") from error


def _nearest(name: str, known: Sequence[str]) -> str:
    """The known name most like it; one that ends alike wins over one that only begins alike."""
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [field for field in known if field.rsplit(".", 1)[-1] == leaf]
    return difflib.get_close_matches(name, same_leaf or known, n=1, cutoff=0.0)[0]


def parse_arguments(
    text: str, variants: Sequence[str], presets: Sequence[str] = ("cpu", "debug"), *more: Sequence[str]
) -> tuple[str, ...]:
    """Reads an experiment's argument text: at most one word of each group, in any order.

    Args:
      text: words, comma-separated.
      variants: the first group, whose first word is the default; may be empty.
      presets: the second group.
      more: further groups.

    Returns:
      One word for every group: `(variant, preset, ...)`; `""` where none is named, of the presets the paper's setting.

    Raises:
      ArgumentError: an unknown or repeated word.
    """
    groups = (variants, presets, *more)
    found = [""] * len(groups)
    for word in filter(None, text.split(",")):
        index = next((i for i, group in enumerate(groups) if word in group and not found[i]), None)
        if index is None:
            choices = " and ".join(f"at most one of {', '.join(group)}" for group in groups if group)
            message = f"config argument {short_repr(word)}: expected {choices}"
            raise ArgumentError(message, (*variants, *(other for group in more for other in group)), tuple(presets))
        found[index] = word
    return found[0] or next(iter(variants), ""), *found[1:]


__all__ = [
    "ArgumentError",
    "describe_arguments",
    "experiments",
    "find_experiment",
    "load_config",
    "override",
    "parse_arguments",
]
