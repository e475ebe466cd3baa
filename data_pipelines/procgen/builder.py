"""TFDS builder of the Procgen clips."""

from typing import Any

import numpy as np

from data_pipelines.builder import ClipBuilder, Unit
from data_pipelines.errors import DataError
from data_pipelines.recipe import Recipe, split_units

# An episode is left after this many clips, so that a level is seen in several ways.
_CLIPS_PER_EPISODE = 8
_EPISODES_WITHOUT_A_CLIP = 500
_MOST_EPISODES = 2**20


class Procgen(ClipBuilder):
    """Random play of the levels 0 to `num_levels` - 1; the first 80 % train, the next 10 % validate, the last test."""

    name = "procgen"
    SECONDS_PER_FRAME = 5e-4
    DESCRIPTION = "Procgen games in easy mode without backgrounds, played at random (package envpool)."

    @staticmethod
    def units(recipe: Recipe) -> dict[str, list[Unit]]:
        clips = split_units(recipe.num_clips)
        levels = split_units(min(recipe.variant["levels"], recipe.num_clips))
        shares = {}
        for name, part in levels.items():
            each, more = divmod(len(clips[name]), len(part))
            counts = [each + (number < more) for number in range(len(part))]
            shares[name] = [(level, count) for level, count in zip(part, counts, strict=True) if count]
        return shares

    @staticmethod
    def make_unit(recipe: Recipe, level: int, num_clips: int) -> list[dict[str, Any]]:
        # Imported here: the parent needs no environment, and a missing package is reported where it is needed.
        from data_pipelines.procgen.play import play

        game, repeat, length = recipe.variant["game"], recipe.variant["repeat"], recipe.clip_length
        rng = np.random.default_rng((recipe.seed, level))
        records: list[dict[str, Any]] = []
        fruitless = 0
        episodes = play(game, level, recipe.height, repeat, rng, max_frames=(_CLIPS_PER_EPISODE + 1) * length)
        for number, episode in enumerate(episodes):
            # Episodes begin with an empty scene: clips that do not all begin there see more of the game. Whole clips
            # only: what is left at the end of an episode is dropped.
            skipped = int(rng.integers(length))
            count = min(max(0, len(episode.frames) - skipped) // length, num_clips - len(records))
            for clip in range(count):
                part = slice(skipped + clip * length, skipped + (clip + 1) * length)
                records.append(
                    {
                        "frames": episode.frames[part],
                        "actions": episode.actions[part],
                        "rewards": episode.rewards[part],
                        "level": level,
                        "episode": level * _MOST_EPISODES + number,
                        "clip": clip,
                    }
                )
            fruitless = 0 if count else fruitless + 1
            if len(records) == num_clips:
                break
            if fruitless == _EPISODES_WITHOUT_A_CLIP:
                raise DataError(
                    f"level {level} of {game}: none of {fruitless} episodes lasts {length} frames;"
                    " lower config.data.clip_length"
                )
        episodes.close()
        return records
