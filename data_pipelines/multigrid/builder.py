"""TFDS builder of the MultiGrid clips."""

import zlib
from typing import Any

import numpy as np

from data_pipelines.builder import ClipBuilder, Unit
from data_pipelines.multigrid.definition import NUM_ACTIONS
from data_pipelines.recipe import Recipe, split_units


class Multigrid(ClipBuilder):
    """Random walks of several agents; every clip is an episode of its own, so splits share no episode."""

    name = "multigrid"
    SECONDS_PER_FRAME = 1e-4
    DESCRIPTION = "Several agents of different colours turn and walk at random in a walled room (package multigrid)."

    @staticmethod
    def units(recipe: Recipe) -> dict[str, list[Unit]]:
        return {name: [(episode, 1) for episode in part] for name, part in split_units(recipe.num_clips).items()}

    @staticmethod
    def make_unit(recipe: Recipe, episode: int, num_clips: int) -> list[dict[str, Any]]:
        agents, shared = (recipe.variant[name] for name in ("agents", "shared"))
        policy_seed, world_seed = np.random.SeedSequence((recipe.seed, episode)).spawn(2)
        actions = np.random.default_rng(policy_seed).integers(
            NUM_ACTIONS, size=(recipe.clip_length, agents), dtype=np.int8
        )
        actions[:, :shared] = actions[:, :1]
        return [_play(recipe, actions, world_seed) | {"episode": episode, "clip": 0}]

    @staticmethod
    def displaced(recipe: Recipe, record: dict[str, Any]) -> dict[str, Any]:
        """The walks of a record from other places, where every action has the same effect."""
        from data_pipelines.multigrid.displace import displace

        walks = {name: np.ascontiguousarray(record[name]) for name in ("positions", "directions", "actions")}
        name = zlib.crc32(b"".join(walk.tobytes() for walk in walks.values()))
        grid = recipe.variant["grid"]
        positions = displace(**walks, grid_size=grid, rng=np.random.default_rng((recipe.seed, name)))
        return _draw(recipe, positions, walks["directions"], walks["actions"])


def _play(recipe: Recipe, actions: np.ndarray, world_seed: np.random.SeedSequence) -> dict[str, Any]:
    # Imported here: the parent needs no environment, and a missing package is reported where it is needed.
    from data_pipelines.multigrid.environment import WalkEnv, walk

    env = WalkEnv(grid_size=recipe.variant["grid"], num_agents=recipe.variant["agents"])
    return _draw(recipe, *walk(env, actions, seed=int(world_seed.generate_state(1)[0])), actions)


def _draw(recipe: Recipe, positions: np.ndarray, directions: np.ndarray, actions: np.ndarray) -> dict[str, Any]:
    from data_pipelines.multigrid.tiles import compose

    frames = compose(positions, directions, grid_size=recipe.variant["grid"], frame_size=recipe.height)
    return {"frames": frames, "actions": actions, "positions": positions, "directions": directions}
