"""Draws the dots."""

from typing import Any

import numpy as np

from data_pipelines.builder import ClipBuilder, Unit
from data_pipelines.recipe import Recipe, split_units
from tests.toy.dots.definition import CELL

_STEPS = np.array([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)])


class Dots(ClipBuilder):
    """Random walks that the edges of the frame stop."""

    name = "dots"
    SECONDS_PER_FRAME = 1e-5
    DESCRIPTION = "Dots that walk at random."

    @staticmethod
    def units(recipe: Recipe) -> dict[str, list[Unit]]:
        return {name: [(clip, 1) for clip in part] for name, part in split_units(recipe.num_clips).items()}

    @staticmethod
    def make_unit(recipe: Recipe, unit: int, num_clips: int) -> list[dict[str, Any]]:
        rng, dots, length = np.random.default_rng((recipe.seed, unit)), recipe.variant["dots"], recipe.clip_length
        last = np.array([recipe.width, recipe.height]) // CELL - 1
        actions = rng.integers(len(_STEPS), size=(length, dots)).astype(np.int8)
        positions = np.empty((length, dots, 2), np.int16)
        positions[0] = rng.integers(last + 1, size=(dots, 2))
        for t in range(1, length):
            positions[t] = np.clip(positions[t - 1] + _STEPS[actions[t - 1]], 0, last)
        frames = np.full((length, recipe.height, recipe.width, 3), 20, np.uint8)
        for t, dot in np.ndindex(length, dots):
            x, y = positions[t, dot] * CELL
            frames[t, y : y + CELL, x : x + CELL, dot] = 240
        return [{"frames": frames, "actions": actions, "positions": positions, "episode": unit, "clip": 0}]
