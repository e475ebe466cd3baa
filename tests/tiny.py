"""The smallest world model and the smallest boards that have all parts, for tests of what stands on top of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import DatasetSpec, spec_of
from flam_jax import build, config
from flam_jax.world_model import WorldModel

SIZE, CELLS, AGENTS = 16, 4, 2


def tiny_config(**changes):
    """A valid configuration; `changes` are fields of `dynamics`."""
    c = config.default_config()
    c.data.frame_size = (SIZE, SIZE)
    c.data.clip_length = 10
    c.data.multigrid.update(grid_size=CELLS, num_agents=AGENTS)
    c.tokenizer.update(encoder="patch", decoder="patch", patch_size=4, channels=8, levels=(3, 3))
    c.dynamics.update(num_factors=3, total_action_dim=6, model_dim=8, num_heads=2, num_blocks=1, history=3)
    c.dynamics.update(num_iterations=2, prediction_steps=1, local_context=True, aggregator="local")
    c.dynamics.update(**changes)
    c.tokenizer.training.window = c.dynamics.training.window = 4
    c.evaluation.update(context=3, steps=4, num_clips=5, probe_clips=4, batch_size=3, num_pictures=2)
    return config.validate(c)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initialize(tokenizer, dynamics, frames, key):
    first, second, third = jax.random.split(key, 3)
    tokenizer_params = tokenizer.init(first, frames)["params"]
    features = tokenizer.apply({"params": tokenizer_params}, frames, method="encode")
    dynamics_params = dynamics.init({"params": second}, features)["params"]
    # Of its own accord an untrained model predicts no change: make everything depend on everything.
    noise = 0.2 * jax.random.normal(third, (10_000,))
    return tokenizer_params, jax.tree.map(lambda p: p + noise[: p.size].reshape(p.shape), dynamics_params)


@functools.cache
def tiny_model(**changes) -> WorldModel:
    """An untrained model of `tiny_config(**changes)`, the same at every call."""
    c = tiny_config(**changes)
    frames = jnp.zeros((1, 2, SIZE, SIZE, 3))
    parts = _initialize(build.build_tokenizer(c), build.build_dynamics(c), frames, jax.random.key(0))
    return WorldModel.from_parts(c, *parts)


def board_record(seed: int, length: int = 10, actions: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A clip of two agents that walk on a grey board, with the fields of a MultiGrid record."""
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, 3, (length, AGENTS)).astype(np.int8) if actions is None else actions
    positions = np.zeros((length, AGENTS, 2), np.int16)
    # Each agent keeps to its own half, so that they never meet.
    positions[..., 0] = rng.integers(0, 2, (length, AGENTS)) + np.array([0, 2])
    positions[..., 1] = rng.integers(0, CELLS, (length, AGENTS))
    directions = rng.integers(0, 4, (length, AGENTS)).astype(np.int8)
    frames = np.full((length, SIZE, SIZE, 3), 90, np.uint8)
    for t in range(length):
        for agent in range(AGENTS):
            column, row = positions[t, agent] * (SIZE // CELLS)
            cell = frames[t, row : row + 4, column : column + 4]
            cell[...] = (
                (250, 30, 60 * int(directions[t, agent])) if agent else (30, 250, 60 * int(directions[t, agent]))
            )
    record = {"frames": frames, "positions": positions, "directions": directions}
    return record | {"actions": actions, "episode": np.int64(seed)}


@dataclasses.dataclass(frozen=True)
class BoardDataset:
    """What `data_pipelines.prepare` returns, in memory."""

    clips: int = 7
    median_frame: np.ndarray = dataclasses.field(default_factory=lambda: np.full((SIZE, SIZE, 3), 90, np.uint8))

    card = preview = None

    @property
    def spec(self) -> DatasetSpec:
        return spec_of(tiny_config().data)

    def split(self, name: str) -> list[dict[str, np.ndarray]]:
        first = {"train": 100, "val": 200, "test": 300}[name]
        return [board_record(first + number) for number in range(self.clips)]

    def displaced(self, record: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        clip = board_record(int(record["frames"].sum()), len(record["frames"]), record["actions"])
        return {key: value for key, value in clip.items() if np.ndim(value)}
