"""What `--help` of the launcher lists: experiments with their arguments, and the fields of the configuration."""

import shutil
import textwrap

from flam_jax.config import ConfigError, describe_arguments, experiments, fields

_LEAST_WIDTH, _MOST_WIDTH = 40, 110


def list_experiments() -> str:
    """The experiments that come with the package, by name, with their variants and presets."""
    found = experiments()
    if not found:
        return "Experiments: none is installed; --config takes the path of a file."
    lines = ["Experiments, as in --config=NAME:VARIANT,PRESET; variant and preset may be left out:", ""]
    for file in found:
        try:
            title, variants, presets = describe_arguments(file)
        except ConfigError as error:
            title, variants, presets = str(error), (), ()
        lines += _wrap(title, f"  {file.stem:<11} ", " " * 14)
        if len(variants) > 1:
            first, *others = variants
            lines += _wrap(", ".join([f"{first} (default)", *others]), " " * 14 + "variants: ", " " * 24)
        if presets:
            lines += _wrap(", ".join(presets), " " * 14 + "presets:  ", " " * 24)
    return "\n".join(lines)


def list_fields(part: str = "") -> str:
    """Fields with their defaults, what they take and what they mean; empty where no field is of that part.

    Args:
      part: the beginning of their dotted names, such as `data.multigrid`; all fields where it is empty.
    """
    lines, group = [], None
    for name, field in fields().items():
        if part and not f"{name}.".startswith(f"{part}."):
            continue
        if name.rpartition(".")[0] != group:
            group = name.rpartition(".")[0]
            lines += ["", group or "the whole run", ""]
        lines.append(f"  --config.{name}={_as_written(field.default)}")
        lines += _wrap(f"{field.meaning} ({field.describe_values()})", " " * 6, " " * 6)
    return "\n".join(lines[1:])


def _as_written(value: object) -> str:
    """A value as it stands on a command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrap(text: str, first: str, rest: str) -> list[str]:
    width = max(_LEAST_WIDTH, min(_MOST_WIDTH, shutil.get_terminal_size((100, 24)).columns))
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


__all__ = ["list_experiments", "list_fields"]
