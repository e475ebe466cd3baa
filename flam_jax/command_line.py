"""The launcher's command line: `--flag=value` or `--flag value`, one clear line for every mistake."""

import dataclasses
import difflib

from flam_jax.config import ConfigError

FLAGS = ("--config", "--workdir")
# Where several processes run as one and no cluster says so: all of them or none.
CLUSTER_FLAGS = ("--coordinator", "--num_processes", "--process_id")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What was asked for."""

    config: str  # path of an experiment, with its arguments
    workdir: str
    overrides: dict[str, str]  # dotted field name -> text
    cluster: dict[str, str]  # name of a cluster flag -> text; empty when there are none


def parse_arguments(arguments: list[str]) -> Arguments:
    """Reads a command line without the program's name.

    Raises:
      ConfigError: a flag is unknown, repeated, missing or without value.
    """
    values: dict[str, str] = {}
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        override = flag.startswith("--config.")
        if not flag.startswith("--"):
            raise ConfigError(f"unexpected argument {word!r}; {_usage()}")
        if not override and flag not in (*FLAGS, *CLUSTER_FLAGS):
            nearest = difflib.get_close_matches(flag, (*FLAGS, *CLUSTER_FLAGS), n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown flag {flag}; the nearest is {nearest}; {_usage()}")
        if not has_value:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{flag}: a value is missing, as in {flag}=VALUE")
            value = rest.pop(0)
        known, name = (overrides, flag.removeprefix("--config.")) if override else (values, flag)
        if name in known:
            raise ConfigError(f"{flag} is given twice: {known[name]!r} and {value!r}")
        known[name] = value
    for flag in FLAGS:
        if not values.get(flag):
            raise ConfigError(f"{flag} is missing; {_usage()}")
    cluster = {flag.removeprefix("--"): values[flag] for flag in CLUSTER_FLAGS if flag in values}
    _check_cluster(cluster)
    return Arguments(values["--config"], values["--workdir"], overrides, cluster)


def _check_cluster(cluster: dict[str, str]) -> None:
    if not cluster:
        return
    missing = [flag for flag in CLUSTER_FLAGS if flag.removeprefix("--") not in cluster]
    if missing:
        raise ConfigError(f"{missing[0]} is missing: {', '.join(CLUSTER_FLAGS)} go together")
    host, _, port = cluster["coordinator"].rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--coordinator={cluster['coordinator']}: expected HOST:PORT of process 0")
    number, index = cluster["num_processes"], cluster["process_id"]
    if not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"--num_processes={number}: expected a whole number of at least 1")
    if not index.isdecimal() or int(index) >= int(number):
        raise ConfigError(f"--process_id={index}: expected a whole number from 0 to {int(number) - 1}")


def _usage() -> str:
    return "usage: python -m flam_jax.main --config=FILE[:ARGUMENTS] --workdir=FOLDER [--config.FIELD=VALUE ...]"
