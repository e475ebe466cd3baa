"""Counts records that cannot be read and are skipped (`data.on_corrupt = "skip"`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flam_jax.cluster import from_all_processes


class Skipped:
    """Records that cannot be read, and the windows in which other records stand in for them, in all steps so far.

    The counts are a function of the steps that were added, so a resumed run has the same. They are of all processes
    together: every process must ask for them after the same steps.
    """

    def __init__(self, rows: Sequence[int], state: Mapping[str, Any] | None = None):
        """Starts from nothing, or from what `state` gave.

        Args:
          rows: of every batch, those that this process reads; several may read the same.
          state: of the run that is resumed.
        """
        state = state or {}
        self._rows = np.asarray(rows)
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
        steps = np.broadcast_to(np.arange(len(self._added))[:, None], (len(self._added), len(self._rows)))
        rows = np.broadcast_to(self._rows, steps.shape)
        found = from_all_processes(np.stack([steps, rows, np.stack(self._added)], axis=-1).reshape(-1, 3))
        self._added = []
        windows = np.unique(found[found[:, 2] >= 0], axis=0)
        met = set(windows[:, 2].tolist())
        self._windows += len(windows)
        self._new |= met - self._records
        self._records |= met
