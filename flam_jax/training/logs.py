"""Where a run's values go: `metrics.jsonl`, TensorBoard, picture files and the terminal."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flam_jax.checkpoints import write_text
from flam_jax.metrics_file import METRICS_FILE, parse_line


class MetricWriter:
    """Writes the values and pictures of one stage.

    `metrics.jsonl` holds one JSON object a line: `stage`, `step` (updates done), `time` (seconds since 1970), `values`
    (name -> number, null where it is not finite), and `speed` (steps per second) on lines of training. A stage that
    resumes from step n first drops its own lines beyond n, so that the file has neither duplicates nor gaps.
    """

    def __init__(self, workdir: str | Path, stage: str, restored_step: int):
        """Opens the files; `restored_step` is the step of the checkpoint that the run resumes from, 0 at the start."""
        from tensorboardX import SummaryWriter  # slow to import

        workdir = Path(workdir)
        self.stage = stage
        self._pictures = workdir / stage / "pictures"
        path = workdir / METRICS_FILE
        drop_lines(path, stage, restored_step)
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(workdir / "tensorboard" / stage), purge_step=restored_step + 1, flush_secs=30)

    def scalars(self, step: int, values: Mapping[str, float], speed: float | None = None) -> None:
        """Writes one line of numbers."""
        line: dict[str, Any] = {"stage": self.stage, "step": step, "time": round(time.time(), 3)}
        if speed is not None:
            line["speed"] = round(speed, 4)
            self._events.add_scalar("steps_per_second", speed, step)
        line["values"] = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Writes pictures, u8[H W 3], to `<workdir>/<stage>/pictures/` and TensorBoard."""
        from PIL import Image

        for name, picture in pictures.items():
            self._pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(self._pictures / f"step_{step:08d}_{name.replace('/', '_')}.png")
            self._events.add_image(name, picture, step, dataformats="HWC")

    def sync(self) -> None:
        """Puts every line on disk; a checkpoint may rely on the lines up to its step."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        """Closes the files."""
        self.sync()
        self._file.close()
        self._events.close()


class NoWriter:
    """Stands in for a MetricWriter where nothing is to be written, on every process but the first."""

    def scalars(self, step: int, values: Mapping[str, float], speed: float | None = None) -> None: ...

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


def drop_lines(path: Path, stage: str, after: int) -> None:
    """Removes a stage's lines of steps beyond `after`, and a last line that was cut off."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines(keepends=True) if _keeps(line, stage, after)]
    if "".join(kept) != text:
        write_text(path, "".join(kept))


def _keeps(line: str, stage: str, after: int) -> bool:
    entry = parse_line(line)
    return entry is not None and line.endswith("\n") and (entry["stage"] != stage or entry["step"] <= after)


class Progress:
    """Shows how far a stage is: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, stage: str, start: int, end: int, stream: Any = None, quiet_seconds: float = 5.0):
        """Begins at step `start` of `end`; lines to a file or pipe come at most every `quiet_seconds`."""
        self.stage, self.start, self.end = stage, start, end
        self._stream = stream or sys.stdout
        self._quiet_seconds, self._last_line = quiet_seconds, -math.inf
        self._began = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")
            self._bar = Progress(*columns, console=Console(file=self._stream))
            self._task = self._bar.add_task(stage, total=end, completed=start, text="")
            self._bar.start()

    def update(self, step: int, loss: float, speed: float) -> None:
        """Shows the state after `step` updates."""
        left = (time.monotonic() - self._began) / max(1, step - self.start) * (self.end - step)
        text = f"{step}/{self.end} loss {loss:.4g} {speed:.3g} steps/s, {describe_seconds(left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif step == self.end or time.monotonic() - self._last_line >= self._quiet_seconds:
            self._last_line = time.monotonic()
            self.log_line(text)

    def log_line(self, text: str) -> None:
        """Prints a line beside the bar."""
        if self._bar is not None:
            self._bar.console.print(f"{self.stage} {text}", markup=False, highlight=False)
        else:
            print(f"{self.stage} {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def describe_seconds(seconds: float) -> str:
    """`40 s`, `5 min`, `3.4 h` or `2.1 days`."""
    for size, unit, digits in ((86_400, "days", 1), (3_600, "h", 1), (60, "min", 0)):
        if seconds >= (1.5 * size if unit != "days" else 2 * size):
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


__all__ = ["MetricWriter", "NoWriter", "Progress", "describe_seconds", "drop_lines"]
