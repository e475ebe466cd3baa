"""TFDS builder of the clips of sprites."""

import zlib
from typing import Any

import numpy as np

from data_pipelines.builder import ClipBuilder, Unit
from data_pipelines.recipe import Recipe, split_units
from data_pipelines.sprites.draw import draw, plain, texture
from data_pipelines.sprites.scene import Walls, choose_actions, elsewhere, pan, walk


class Sprites(ClipBuilder):
    """Random walks of shapes; every clip is an episode of its own, so splits share no episode."""

    name = "sprites"
    SECONDS_PER_FRAME = 3e-4
    DESCRIPTION = "Shapes with smooth edges move at random, over each other and up to the walls."

    @staticmethod
    def units(recipe: Recipe) -> dict[str, list[Unit]]:
        return {name: [(episode, 1) for episode in part] for name, part in split_units(recipe.num_clips).items()}

    @staticmethod
    def make_unit(recipe: Recipe, episode: int, num_clips: int) -> list[dict[str, Any]]:
        fields, length = recipe.variant, recipe.clip_length
        rng = np.random.default_rng((recipe.seed, episode))
        sizes = rng.uniform(fields["from"], fields["to"], fields["sprites"]).astype(np.float32)
        actions = choose_actions(length, fields["sprites"], fields["keep"], rng)
        centers, moves = walk(actions, sizes, _walls(recipe), rng)
        record = _record(recipe, centers, sizes, rng)
        return [record | {"actions": actions, "moves": moves, "episode": episode, "clip": 0}]

    @staticmethod
    def displaced(recipe: Recipe, record: dict[str, Any]) -> dict[str, Any]:
        """The moves of a record from other starts, before another background."""
        centers, sizes = record["positions"], record["sizes"][0]
        rng = np.random.default_rng((recipe.seed, zlib.crc32(np.ascontiguousarray(centers).tobytes())))
        if "camera" in record:
            centers = centers + _along_x(record["camera"])
        found = _record(recipe, elsewhere(centers, sizes, _walls(recipe), rng), sizes, rng)
        return found | {"actions": record["actions"], "moves": record["moves"]}


def _walls(recipe: Recipe) -> Walls:
    return Walls.around(recipe.height, recipe.width, recipe.variant["speed"], recipe.variant["camera"])


def _record(recipe: Recipe, centers: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Frames, and what is known of them, of shapes whose centers are counted from the middle of the camera's way."""
    fields, length = recipe.variant, len(centers)
    camera = np.zeros(length)
    if fields["camera"]:
        camera = pan(length, recipe.width, fields["camera"], rng)
    seen = centers - _along_x(camera)
    if fields["background"] == "plain":
        ground = plain(length, recipe.height, recipe.width)
    else:
        drift = rng.uniform(-1, 1, 2) if fields["background"] == "moving" else np.zeros(2)
        offsets = _along_x(camera)[:, 0] + np.arange(length)[:, None] * drift
        ground = texture(offsets, recipe.height, recipe.width, rng)
    frames, masks = draw(seen, sizes, ground, bool(fields["color"]), bool(fields["shape"]))
    record = {
        "frames": frames,
        "positions": seen.astype(np.float32),
        "sizes": np.tile(sizes, (length, 1)),
        "masks": masks,
    }
    return record | ({"camera": camera.astype(np.float32)} if fields["camera"] else {})


def _along_x(offset: np.ndarray) -> np.ndarray:
    """[t] to [t 1 2]: offsets of x, for points of every frame."""
    return np.stack([offset, np.zeros_like(offset)], axis=-1)[:, None]
