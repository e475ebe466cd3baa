"""`metrics.jsonl`: what a run has logged, one JSON object a line."""

import json
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"


def parse_line(line: str) -> dict[str, Any] | None:
    """An entry with `stage`, `step` and `values`; None for a line that was cut off by the end of a process."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"stage", "step", "values"} <= set(entry) else None


def read_metrics(workdir: str | Path, stage: str | None = None) -> list[dict[str, Any]]:
    """The entries of a run, in order of writing; empty where there is no file.

    Args:
      workdir: folder of the run.
      stage: whose entries; of all stages by default.
    """
    path = Path(workdir) / METRICS_FILE
    if not path.is_file():
        return []
    entries = [parse_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [entry for entry in entries if entry is not None and stage in (None, entry["stage"])]


__all__ = ["METRICS_FILE", "parse_line", "read_metrics"]
