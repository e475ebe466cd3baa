"""Command lines: `--flag=value` or `--flag value`, one clear line for every mistake."""

import dataclasses
import difflib
import re
from collections.abc import Sequence

from data_pipelines.paths import describe_problem, expand_path
from flam_jax.config import ConfigError
from flam_jax.messages import short_repr, truncate

USAGE = "python -m flam_jax.main --config=FILE[:ARGUMENTS] --workdir=FOLDER [--config.FIELD=VALUE ...]"
# Where several processes run as one and no cluster says so: all of them or none.
CLUSTER_FLAGS = ("--coordinator", "--num_processes", "--process_id")
_OVERRIDE = "--config."


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What was asked for."""

    config: str  # path of an experiment, with its arguments
    workdir: str
    overrides: dict[str, str]  # dotted field name -> text
    cluster: dict[str, str]  # name of a cluster flag -> text; empty when there are none


def parse_arguments(arguments: list[str]) -> Arguments:
    """Reads the launcher's command line without the program's name.

    Raises:
      ConfigError: a flag is unknown, repeated, missing or without value.
    """
    values, overrides = read_flags(
        arguments,
        USAGE,
        required=("--config", "--workdir"),
        optional=CLUSTER_FLAGS,
        folders=("--workdir",),
        takes_overrides=True,
    )
    cluster = {flag.removeprefix("--"): values[flag] for flag in CLUSTER_FLAGS if flag in values}
    _check_cluster(cluster)
    return Arguments(values["--config"], values["--workdir"], overrides, cluster)


def read_flags(
    arguments: Sequence[str],
    usage: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    switches: Sequence[str] = (),
    repeated: Sequence[str] = (),
    folders: Sequence[str] = (),
    files: Sequence[str] = (),
    takes_overrides: bool = False,
) -> tuple[dict[str, str], dict[str, str]]:
    """Reads a command line without the program's name.

    Args:
      arguments: the words.
      usage: the whole command, for messages.
      required: flags with a value that must be given.
      optional: flags with a value that may be given.
      switches: flags without a value.
      repeated: of the others, those that may be given more than once; their values are joined by line breaks.
      folders, files: of the others, those whose value is a path; `~` is expanded.
      takes_overrides: whether there is `--config.FIELD=VALUE`.

    Returns:
      Values by flag, empty for switches; and the overrides by dotted field name.

    Raises:
      ConfigError: a flag is unknown, repeated, missing, without value, or a switch with one; or a path cannot be one.
    """
    known = (*required, *optional, *switches)
    values: dict[str, str] = {}
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        override = takes_overrides and flag.startswith(_OVERRIDE)
        if not flag.startswith("--"):
            raise ConfigError(f"unexpected argument {short_repr(word)}; usage: {usage}")
        if not override and flag not in known:
            nearest = difflib.get_close_matches(flag.lower(), known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown flag {truncate(flag)}; the nearest is {nearest}; usage: {usage}")
        if flag in switches:
            if has_value:
                raise ConfigError(f"{flag} takes no value, got {short_repr(value)}")
        else:
            if not has_value and rest and not rest[0].startswith("--"):
                value, has_value = rest.pop(0), "="
            if not has_value or not (value or override):
                raise ConfigError(f"{truncate(flag)}: a value is missing, as in {truncate(flag)}=VALUE")
        given, name = (overrides, flag.removeprefix(_OVERRIDE)) if override else (values, flag)
        if name in given and flag in repeated:
            value = f"{given[name]}\n{value}"
        elif name in given:
            raise ConfigError(f"{truncate(flag)} is given twice: {short_repr(given[name])} and {short_repr(value)}")
        given[name] = value
    for flag in required:
        if flag not in values:
            raise ConfigError(f"{flag} is missing; usage: {usage}")
    for flag in (*folders, *files):
        if flag in values:
            values[flag] = _read_path(flag, values[flag], "a folder" if flag in folders else "a file")
    return values, overrides


def _check_cluster(cluster: dict[str, str]) -> None:
    if not cluster:
        return
    missing = [flag for flag in CLUSTER_FLAGS if flag.removeprefix("--") not in cluster]
    if missing:
        raise ConfigError(f"{missing[0]} is missing: {', '.join(CLUSTER_FLAGS)} go together")
    coordinator, number, index = (cluster[flag.removeprefix("--")] for flag in CLUSTER_FLAGS)
    if not re.fullmatch(r"[^\s:]+:[0-9]{1,5}", coordinator):
        raise ConfigError(f"--coordinator={short_repr(coordinator)}: expected HOST:PORT of process 0")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", number):
        raise ConfigError(f"--num_processes={short_repr(number)}: expected a whole number from 1 to 999999")
    if not re.fullmatch(r"[0-9]{1,6}", index) or int(index) >= int(number):
        raise ConfigError(f"--process_id={short_repr(index)}: expected a whole number from 0 to {int(number) - 1}")


def _read_path(flag: str, text: str, what: str) -> str:
    path = expand_path(text)
    expected = describe_problem(path, what)
    if expected:
        raise ConfigError(f"{flag}={short_repr(text)}: expected {expected}")
    return path
