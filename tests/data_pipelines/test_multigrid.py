"""MultiGrid: the frames are the package's, the moves are the package's, the variants are what they say."""

import numpy as np
import pytest

from data_pipelines.multigrid.builder import Multigrid
from data_pipelines.multigrid.environment import PALETTE, WalkEnv, walk
from data_pipelines.multigrid.tiles import compose, render_tiles
from data_pipelines.recipe import Recipe

LEFT, RIGHT, FORWARD = 0, 1, 2
STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


def recipe(agents: int = 4, shared: int = 0, size: int = 32) -> Recipe:
    variant = {"grid": 8, "agents": agents, "shared": shared}
    return Recipe("multigrid", size, size, num_frames=320, clip_length=32, seed=3, variant=variant)


@pytest.mark.parametrize(("agents", "size"), [(4, 64), (16, 32)])
def test_composed_frame_equals_the_packages_render(agents: int, size: int) -> None:
    env = WalkEnv(grid_size=8, num_agents=agents)
    rng = np.random.default_rng(0)
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(3):
            state = env.agent_states
            frame = compose(np.array([state.pos], np.int16), np.array([state.dir], np.int8), 8, size)[0]
            np.testing.assert_array_equal(frame, env.grid.render(size // 8, agents=env.agents))
            env.step(dict(enumerate(rng.integers(3, size=agents).tolist())))


def test_recorded_frames_show_the_recorded_state() -> None:
    (record,) = Multigrid.make_unit(recipe(), 5, 1)
    expected = compose(record["positions"], record["directions"], 8, 32)
    np.testing.assert_array_equal(record["frames"], expected)
    assert record["frames"].shape == (32, 32, 32, 3)


def test_sixteen_agents_differ_from_each_other_and_from_floor_and_wall() -> None:
    tiles = render_tiles(16, 16)
    colours = np.array([(0, 0, 0), (100, 100, 100), *PALETTE])
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[np.triu_indices(18, 1)].min() > 90
    assert len({tile.tobytes() for tile in tiles}) == 2 + 16 * 4


def test_moves_are_turns_and_steps_that_walls_and_agents_block() -> None:
    (record,) = Multigrid.make_unit(recipe(agents=16), 1, 1)
    positions, directions, actions = (record[name].astype(int) for name in ("positions", "directions", "actions"))
    turn = np.select([actions == LEFT, actions == RIGHT], [-1, 1], 0)
    np.testing.assert_array_equal(directions[1:], (directions + turn)[:-1] % 4)
    moved = positions[1:] - positions[:-1]
    stepped = (moved != 0).any(-1)
    assert (actions[:-1][stepped] == FORWARD).all()
    np.testing.assert_array_equal(moved[stepped], STEPS[directions[:-1][stepped]])
    assert stepped.any()
    assert (actions[:-1] == FORWARD).sum() > stepped.sum(), "nobody was blocked"
    assert positions.min() == 1
    assert positions.max() == 6
    for row in positions:
        assert len({tuple(cell) for cell in row}) == 16


def test_two_agents_that_face_each_other_do_not_swap() -> None:
    env = WalkEnv(grid_size=4, num_agents=2)
    env.reset(seed=0)
    env.agents[0].state.pos, env.agents[0].state.dir = (1, 1), 0
    env.agents[1].state.pos, env.agents[1].state.dir = (2, 1), 2
    env.step({0: FORWARD, 1: FORWARD})
    np.testing.assert_array_equal(env.agent_states.pos, [(1, 1), (2, 1)])


def test_shared_actions_are_equal_and_the_others_are_not() -> None:
    (record,) = Multigrid.make_unit(recipe(shared=2), 0, 1)
    actions = record["actions"]
    np.testing.assert_array_equal(actions[:, 0], actions[:, 1])
    assert (actions[:, 0] != actions[:, 2]).any()
    assert (actions[:, 2] != actions[:, 3]).any()
    (free,) = Multigrid.make_unit(recipe(), 0, 1)
    assert (free["actions"][:, 0] != free["actions"][:, 1]).any()


def test_a_seed_decides_the_whole_walk() -> None:
    actions = np.full((20, 16), FORWARD, np.int8)
    walks = [walk(WalkEnv(8, 16), actions, seed) for seed in (7, 7, 8)]
    np.testing.assert_array_equal(walks[0][0], walks[1][0])
    assert (walks[0][0] != walks[2][0]).any()


class PlacedEnv(WalkEnv):
    """Agents start at given cells; all else is drawn as ever."""

    def __init__(self, grid_size: int, places: np.ndarray):
        super().__init__(grid_size, len(places))
        self.places = places.tolist()

    def _gen_grid(self, width: int, height: int) -> None:
        super()._gen_grid(width, height)
        for agent, place in zip(self.agents, self.places, strict=True):
            agent.state.pos = place


@pytest.mark.parametrize("agents", [2, 4, 16])
def test_a_displaced_clip_does_the_same_in_other_places(agents: int) -> None:
    """Played again from the displaced places, with the same draws of who moves first, the walk is the same."""
    of_all, moved = recipe(agents=agents), []
    for episode in range(30):
        (record,) = Multigrid.make_unit(of_all, episode, 1)
        first = {name: record[name][:14] for name in ("actions", "positions", "directions")}
        displaced = Multigrid.displaced(of_all, first)
        world_seed = np.random.SeedSequence((of_all.seed, episode)).spawn(2)[1]
        seed = int(world_seed.generate_state(1)[0])
        positions, directions = walk(PlacedEnv(8, displaced["positions"][0]), first["actions"], seed)
        np.testing.assert_array_equal(displaced["positions"], positions)
        np.testing.assert_array_equal(displaced["directions"], directions)
        np.testing.assert_array_equal(displaced["directions"], first["directions"])
        np.testing.assert_array_equal(displaced["actions"], first["actions"])
        moved.append((displaced["positions"] != first["positions"]).any(axis=(0, 2)).mean())
        # Whole paths are shifted.
        assert np.ptp(displaced["positions"] - first["positions"], axis=0).max() == 0
    # Sixteen agents on 36 cells hold each other where they are.
    assert np.mean(moved) > (0.03 if agents == 16 else 0.8)


def test_a_displaced_clip_is_drawn_as_its_walk_and_the_same_every_time() -> None:
    (record,) = Multigrid.make_unit(recipe(), 3, 1)
    first = {name: record[name][:14] for name in ("actions", "positions", "directions")}
    displaced, again = Multigrid.displaced(recipe(), first), Multigrid.displaced(recipe(), first)
    np.testing.assert_array_equal(displaced["frames"], again["frames"])
    np.testing.assert_array_equal(displaced["frames"], compose(displaced["positions"], displaced["directions"], 8, 32))
    assert displaced["frames"].shape == (14, 32, 32, 3)
