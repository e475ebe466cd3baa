"""Shares out clips that were read over splits, so that none holds what another one has just seen."""

import hashlib
import itertools
from collections.abc import Sequence

from data_pipelines.errors import DataError
from data_pipelines.recipe import SPLITS, Recipe, split_units

_GAP_SECONDS = 1.0  # between the splits of one source
_LEAST_CLIPS = 10


def share_out(
    names: Sequence[str], times: Sequence[Sequence[tuple[float, float]]], recipe: Recipe
) -> tuple[list[list[str]], str]:
    """The split of every clip of every source; empty for a clip that lies in a gap between two splits.

    Args:
      names: of the sources; their order in the splits is by a hash of these.
      times: first and last second of every clip of every source, in order.
      recipe: for messages.

    Returns:
      The splits, and by what they were made: `source` where ten sources or more have clips; else `time`: the first
      eight tenths of every source that has ten clips, and so on, with a gap between them.

    Raises:
      DataError: there are too few clips.
    """
    used = [number for number, clips in enumerate(times) if clips]
    if len(used) >= _LEAST_CLIPS:
        used.sort(key=lambda number: hashlib.sha256(names[number].encode("utf-8", "replace")).digest())
        split_of = {used[place]: name for name, part in split_units(len(used)).items() for place in part}
        return [[split_of[number]] * len(clips) if clips else [] for number, clips in enumerate(times)], "source"
    total = sum(map(len, times))
    problem = (
        f"{recipe.source} gives {total} clips of {recipe.clip_length} frames: expected enough for three splits,"
        f" at least {_LEAST_CLIPS}; a smaller config.data.clip_length or more video makes more"
    )
    if total < _LEAST_CLIPS:
        raise DataError(problem)
    if any(len(clips) >= _LEAST_CLIPS for clips in times):
        result = [
            _by_time([(0, *clip) for clip in clips]) if len(clips) >= _LEAST_CLIPS else ["train"] * len(clips)
            for clips in times
        ]
    else:  # all of them one after the other
        flat = iter(_by_time([(number, *clip) for number, clips in enumerate(times) for clip in clips]))
        result = [list(itertools.islice(flat, len(clips))) for clips in times]
    if set(SPLITS) - {split for splits in result for split in splits}:
        raise DataError(problem)
    return result, "time"


def _by_time(clips: Sequence[tuple[int, float, float]]) -> list[str]:
    """Splits of clips that follow one another: the last tenth for tests, the one before for validation."""
    tenth = max(1, len(clips) // 10)
    result = [""] * len(clips)
    end = len(clips)
    for split, count in (("test", tenth), ("val", tenth), ("train", len(clips))):
        begin = max(0, end - count)
        result[begin:end] = [split] * (end - begin)
        end = begin
        if begin:  # what comes too close to the first clip of this split is left out
            source, start, _ = clips[begin]
            while end and clips[end - 1][0] == source and clips[end - 1][2] > start - _GAP_SECONDS:
                end -= 1
    return result


__all__ = ["share_out"]
