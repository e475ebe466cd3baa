"""Cuts a video into clips: never across a cut of scenes, a gap in time, or a stretch in which nothing moves."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Values of one frame by their names in the records; `frames` and `seconds` are always among them.
Moment = dict[str, Any]

# A change that is greater than the threshold is a cut if it is also so many times the usual one just before: in a video
# that shakes or pans every change is great.
_TIMES_THE_USUAL = 3.0
_CHANGES_BEFORE = 8
# Of 255: no pixel of a frame at rest changes by more. As for moving pixels in the evaluation.
_STILL = 8


@dataclass(frozen=True)
class Cutting:
    """What makes up a clip.

    Attributes:
      length: frames of a clip.
      step: frames from the start of one clip to the start of the next.
      cut_threshold: mean absolute change of a color value between two frames, as a share of the range, above which it
        can be a cut; 0: there are no cuts.
      still_seconds: a stretch without any change is cut off after so many seconds; 0: it is kept.
      longest_gap: seconds between two frames above which they do not belong together.
    """

    length: int
    step: int
    cut_threshold: float = 0.0
    still_seconds: float = 0.0
    longest_gap: float = float("inf")


@dataclass
class ClipCutter:
    """Makes clips of the moments of one stretch of video, and counts.

    Attributes:
      cutting: the rules.
      counts: `frames` seen, `cuts`, `gaps`, `still frames` that are cut off, and `frames left over`, in no clip.
    """

    cutting: Cutting
    counts: dict[str, int] = field(
        default_factory=lambda: {"frames": 0, "cuts": 0, "gaps": 0, "still frames": 0, "frames left over": 0}
    )

    def clips(self, moments: Iterator[Moment]) -> Iterator[dict[str, np.ndarray]]:
        """Every clip as fields with time first.

        Args:
          moments: frames in order of time.
        """
        rules, counts = self.cutting, self.counts
        kept: deque[Moment] = deque()
        used = 0  # of the frames kept, how many lie in a clip already
        for moment, reason in self._marked(moments):
            if reason:
                counts["frames left over"] += len(kept) - used
                kept.clear()
                used = 0
            if moment is None:
                continue
            kept.append(moment)
            if len(kept) < rules.length:
                continue
            yield {name: np.stack([each[name] for each in kept]) for name in moment}
            for _ in range(min(rules.step, rules.length)):
                kept.popleft()
            used = len(kept)
        counts["frames left over"] += len(kept) - used

    def _marked(self, moments: Iterator[Moment]) -> Iterator[tuple[Moment | None, str]]:
        """Every moment, and why it does not belong to the one before; no moment for one that is left out."""
        rules, counts = self.cutting, self.counts
        before: Moment | None = None
        changes: deque[float] = deque(maxlen=_CHANGES_BEFORE)
        still_since: float | None = None
        for moment in moments:
            counts["frames"] += 1
            reason = ""
            if before is not None:
                reason = self._break(before, moment, changes)
                if reason:
                    counts[reason] += 1
                if rules.still_seconds and not reason and _is_still(before["frames"], moment["frames"]):
                    still_since = before["seconds"] if still_since is None else still_since
                else:
                    still_since = None
            before = moment
            if still_since is not None and moment["seconds"] - still_since > rules.still_seconds:
                counts["still frames"] += 1
                yield None, "still"
            else:
                yield moment, reason

    def _break(self, before: Moment, moment: Moment, changes: deque[float]) -> str:
        passed = moment["seconds"] - before["seconds"]
        if not 0 <= passed <= self.cutting.longest_gap:
            return "gaps"
        if not self.cutting.cut_threshold:
            return ""
        change = _change(before["frames"], moment["frames"])
        usual = float(np.median(changes)) if changes else 0.0
        changes.append(change)
        return "cuts" if change > self.cutting.cut_threshold and change > _TIMES_THE_USUAL * usual else ""


def _change(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(before.astype(np.int16) - after).mean()) / 255


def _is_still(before: np.ndarray, after: np.ndarray) -> bool:
    return int(np.abs(before.astype(np.int16) - after).max()) <= _STILL


__all__ = ["ClipCutter", "Cutting", "Moment"]
