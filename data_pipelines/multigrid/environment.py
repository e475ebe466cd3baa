"""The walk: agents of the `multigrid` package in an empty room, without a goal and without an end."""

from typing import Any

import numpy as np
from jaxtyping import Int8, Int16

from data_pipelines.errors import missing_extra

try:
    from multigrid.base import MultiGridEnv
    from multigrid.core.actions import Action
    from multigrid.core.constants import Color
    from multigrid.core.grid import Grid
except ImportError as error:
    raise missing_extra("multigrid", error) from error

# The package has six colours and repeats them. These are chosen greedily to lie far from each other and farther still
# from the floor (black) and the wall (grey), in RGB and in CIELAB.
PALETTE = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 0, 255),
    (0, 255, 192),
    (255, 255, 160),
    (0, 128, 255),
    (255, 0, 128),
    (255, 160, 255),
    (255, 128, 0),
    (160, 255, 128),
    (128, 255, 255),
    (0, 0, 160),
    (0, 160, 0),
    (160, 0, 0),
)
_ACTIONS = (Action.left, Action.right, Action.forward)
_NEVER = 2**62


def _colour(agent: int) -> str:
    name = f"agent{agent}"
    if name not in Color.__members__:
        Color.add_color(name, np.array(PALETTE[agent]))
    return name


class WalkEnv(MultiGridEnv):
    """An empty room with a wall around it. The dynamics are the package's; agents block each other."""

    def __init__(self, grid_size: int, num_agents: int):
        super().__init__(agents=num_agents, grid_size=grid_size, max_steps=_NEVER, allow_agent_overlap=False)
        for agent in self.agents:
            agent.state.color = _colour(agent.index)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        # The package's own placement draws from a generator that `reset(seed=...)` does not reach.
        cells = self.np_random.permutation((width - 2) * (height - 2))[: self.num_agents]
        for agent, cell in zip(self.agents, cells, strict=True):
            agent.state.pos = (1 + cell % (width - 2), 1 + cell // (width - 2))
            agent.state.dir = self.np_random.integers(4)

    def gen_obs(self) -> dict[int, Any]:
        """Nothing: the agents' own views are not used, and leaving them out saves compiling them."""
        return {}


def walk(
    env: WalkEnv, actions: Int8[np.ndarray, "t n"], seed: int
) -> tuple[Int16[np.ndarray, "t n 2"], Int8[np.ndarray, "t n"]]:
    """Plays one episode.

    Args:
      env: the room.
      actions: 0 turn left, 1 turn right, 2 forward. The last row is chosen, but its outcome is not seen.
      seed: decides where the agents start and who moves first when two want the same cell.

    Returns:
      Positions (column, row) and directions (0 right, 1 down, 2 left, 3 up) before each action.
    """
    env.reset(seed=seed)
    positions = np.empty((*actions.shape, 2), np.int16)
    directions = np.empty(actions.shape, np.int8)
    for t, row in enumerate(actions.tolist()):
        positions[t] = env.agent_states.pos
        directions[t] = env.agent_states.dir
        if t + 1 < len(actions):
            env.step({agent: _ACTIONS[action] for agent, action in enumerate(row)})
    return positions, directions
