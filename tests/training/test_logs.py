"""Metric files, pictures and progress."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from flam_jax.metrics_file import read_metrics
from flam_jax.training.logs import MetricWriter, Progress, describe_seconds, drop_lines


def line(stage: str, step: int) -> str:
    return json.dumps({"stage": stage, "step": step, "values": {}}) + "\n"


def test_lines_beyond_the_restored_step_and_a_cut_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line("tokenizer", 9) + line("dynamics", 2) + line("dynamics", 4) + line("dynamics", 6)[:-9])
    drop_lines(path, "dynamics", 2)
    assert path.read_text() == line("tokenizer", 9) + line("dynamics", 2)
    drop_lines(path, "dynamics", 2)
    drop_lines(tmp_path / "absent.jsonl", "dynamics", 2)
    assert [entry["step"] for entry in read_metrics(tmp_path, "tokenizer")] == [9]
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [9, 2]
    assert read_metrics(tmp_path / "absent", "tokenizer") == []


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path, "dynamics", 0)
    writer.scalars(3, {"a": 1.5, "b": math.nan, "c": math.inf}, speed=2.0)
    writer.pictures(3, {"x/y": np.zeros((4, 5, 3), np.uint8)})
    writer.close()
    (entry,) = read_metrics(tmp_path, "dynamics")
    assert entry["values"] == {"a": 1.5, "b": None, "c": None}
    assert entry["speed"] == 2.0
    assert (tmp_path / "dynamics" / "pictures" / "step_00000003_x_y.png").is_file()


def test_progress_as_lines() -> None:
    stream = io.StringIO()
    progress = Progress("dynamics", 0, 10, stream)
    for step in (2, 4, 10):
        progress.update(step, 3.21, 12.3)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2  # step 4 comes too soon after step 2
    assert lines[0].startswith("dynamics 2/10 loss 3.21 12.3 steps/s, ")
    assert lines[1] == "dynamics 10/10 loss 3.21 12.3 steps/s, 0 s left"


def test_progress_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress("dynamics", 0, 10, stream)
    progress.update(10, 3.21, 12.3)
    progress.log_line("warning: [look]")
    progress.close()
    assert "dynamics warning: [look]" in stream.getvalue()
    assert "10/10 loss 3.21" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (80.0, "80 s"), (300.0, "5 min"), (5399.0, "90 min"), (5400.0, "1.5 h"), (259_200.0, "3.0 days")],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text
