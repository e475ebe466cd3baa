"""Counts what a stage's batches were without: records that cannot be read (`data.on_corrupt = "skip"`)."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


class Skipped:
    """Records that cannot be read, and the windows in which other records stand in for them, in all steps so far.

    The counts are a function of the steps that were added, so a run that goes on has the same. They are of all
    processes together: every process must ask for them after the same steps.
    """

    def __init__(self, state: Mapping[str, Any] | None = None):
        """Starts from nothing, or from what `state` gave."""
        state = state or {}
        self._windows: int = state.get("windows", 0)
        self._records: set[int] = set(state.get("records", ()))
        self._new: set[int] = set()
        self._added: list[np.ndarray] = []  # of this process, not yet counted
        self._skips = bool(state)

    def add(self, origin: Mapping[str, np.ndarray]) -> None:
        """Takes the `origin` of the batch of the next step."""
        if "skipped" in origin:
            self._skips = True
            self._added.append(np.asarray(origin["skipped"]))

    def values(self) -> dict[str, int]:
        """Numbers to log: nothing where records are not skipped but end the run."""
        self._count()
        if not self._skips:
            return {}
        return {"skipped_records": len(self._records), "skipped_windows": self._windows}

    def faults(self, loader: Any) -> list[str]:
        """One line for each file with records that were met for the first time since the last call."""
        self._count()
        new, self._new = sorted(self._new), set()
        return loader.faults(new) if new else []

    def state(self) -> dict[str, Any]:
        """Fit for JSON; empty where records are not skipped."""
        self._count()
        return {"windows": self._windows, "records": sorted(self._records)} if self._skips else {}

    def summary(self) -> str:
        """One line for the end of a stage; empty when nothing was skipped."""
        self._count()
        if not self._windows:
            return ""
        windows = "1 window" if self._windows == 1 else f"{self._windows} windows"
        records = "1 record" if len(self._records) == 1 else f"{len(self._records)} records"
        return f"skipped {windows} of {records} that cannot be read; others stood in for them"

    def _count(self) -> None:
        if not self._added:  # the same steps, hence the same in every process
            return
        rows = np.concatenate(self._added)
        self._added = []
        if jax.process_count() > 1:
            rows = np.asarray(multihost_utils.process_allgather(rows)).reshape(-1)
        met = rows[rows >= 0].tolist()
        self._windows += len(met)
        self._new |= set(met) - self._records
        self._records |= set(met)
