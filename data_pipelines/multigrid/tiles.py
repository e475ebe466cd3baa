"""Frames from state by looking up tiles: the same pixels as the package's own renderer, a thousand times as fast."""

import functools
from typing import cast

import numpy as np
from jaxtyping import Int8, Int16, UInt8

from data_pipelines.errors import missing_extra
from data_pipelines.multigrid.environment import WalkEnv

try:
    from multigrid.core.agent import Agent
    from multigrid.core.grid import Grid
    from multigrid.core.world_object import Wall, WorldObj
except ImportError as error:
    raise missing_extra("multigrid", error) from error

_FLOOR, _WALL, _AGENTS = 0, 1, 2


def _tile(tile_size: int, thing: WorldObj | None = None, agent: Agent | None = None) -> UInt8[np.ndarray, "p p 3"]:
    # Cut off to whole numbers just as the package does when it copies a tile into a frame.
    return Grid.render_tile(thing, agent=agent, tile_size=tile_size).astype(np.uint8)


@functools.lru_cache(maxsize=4)
def render_tiles(num_agents: int, tile_size: int) -> UInt8[np.ndarray, "tiles p p 3"]:
    """Renders every tile once with the package: floor, wall, then each agent in its four directions."""
    tiles = [_tile(tile_size), _tile(tile_size, cast(WorldObj, Wall()))]
    for agent in WalkEnv(grid_size=16, num_agents=num_agents).agents:
        for direction in range(4):
            agent.state.dir = direction
            tiles.append(_tile(tile_size, agent=agent))
    return np.stack(tiles)


def compose(
    positions: Int16[np.ndarray, "t n 2"], directions: Int8[np.ndarray, "t n"], grid_size: int, frame_size: int
) -> UInt8[np.ndarray, "t H W 3"]:
    """Frames of a walk.

    Args:
      positions: column and row of every agent, no two in one cell.
      directions: 0 right, 1 down, 2 left, 3 up.
      grid_size: cells per side, the wall included.
      frame_size: pixels per side, a multiple of `grid_size`.
    """
    t, n = directions.shape
    tile = frame_size // grid_size
    tiles = render_tiles(n, tile)
    board = np.full((t, grid_size, grid_size), _WALL)
    board[:, 1:-1, 1:-1] = _FLOOR
    board[np.arange(t)[:, None], positions[..., 1], positions[..., 0]] = _AGENTS + 4 * np.arange(n) + directions
    frames = np.empty((t, grid_size, tile, grid_size, tile, 3), np.uint8)
    frames[:] = tiles[board].transpose(0, 1, 3, 2, 4, 5)
    return frames.reshape(t, frame_size, frame_size, 3)
