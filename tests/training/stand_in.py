"""A tiny stage and loader with the trainer's interfaces, for tests of the training loop alone."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flam_jax.config import default_config
from flam_jax.training.batches import Loader
from flam_jax.training.state import WHOLE, Span


class TinyStage:
    """Predicts a frame from a noisy view of it with one hidden layer; counts its traces."""

    def __init__(
        self,
        loader: Callable[[], Loader] | None = None,
        name: str = "tokenizer",
        width: int = 8,
        frozen: Mapping[str, Any] | None = None,
    ):
        self.loader, self.name, self.width = loader or TinyLoader, name, width
        self.frozen = frozen or {}
        self.traces = 0
        self.evaluated: list[int] = []

    def init(self, key: jax.Array, frozen: Any, batch: Any) -> dict[str, Any]:
        size = int(np.prod(batch["frames"].shape[2:]))
        first, second = jax.random.split(key)
        return {
            "params": {
                "into": {"kernel": 0.1 * jax.random.normal(first, (size, self.width)), "bias": jnp.zeros(self.width)},
                "out": {"kernel": 0.1 * jax.random.normal(second, (self.width, size)), "bias": jnp.zeros(size)},
            }
        }

    def loss(
        self, params: Any, frozen: Any, batch: Any, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        self.traces += 1
        x = batch["frames"].reshape((*batch["frames"].shape[:2], -1)).astype(jnp.float32) / 255
        noisy = x + 0.1 * (1 - progress) * jax.random.normal(key, x.shape)
        hidden = jnp.tanh(noisy @ params["into"]["kernel"] + params["into"]["bias"][None, None])
        error = jnp.square(hidden @ params["out"]["kernel"] + params["out"]["bias"][None, None] - x).mean()
        marked = (batch["frames"][:, 0, 0, 0, 0] == 255).any()  # the stand-in loader marks the bad record so
        return error * jnp.where(marked, jnp.nan, 1.0), {"error": error, "progress": progress}

    def prepare(self, frozen: Any, batch: Any) -> Any:
        return batch

    def span(self, part: str) -> Span:
        return WHOLE

    def warnings(self, values: Mapping[str, float]) -> list[str]:
        return []

    def evaluate(self, variables: Any, step: int, progress: float) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        self.evaluated.append(step)
        norm = float(jnp.abs(variables["params"]["into"]["kernel"]).sum())
        return {"validation/norm": norm}, {"gray": np.full((4, 6, 3), 128, np.uint8)}

    def make_loader(self, rows: Sequence[int] | None = None) -> Loader:
        return self.loader()

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {"frames": jax.ShapeDtypeStruct((batch_size, 2, 4, 4, 3), jnp.uint8)}


class RestingStage(TinyStage):
    """One of its parts is trained in the first half, the other one in the second."""

    def span(self, part: str) -> Span:
        return (0.0, 0.5) if part == "into" else (0.5, 1.0)


class TinyLoader:
    """Seeded random frames; record n of the sequence is a function of the seed and n."""

    def __init__(
        self,
        batch_size: int = 4,
        window: int = 2,
        size: int = 4,
        seed: int = 0,
        bad_step: int = -1,
        seconds: float = 0.0,
    ):
        self.shape = (batch_size, window, size, size, 3)
        self.seed, self.bad_step, self.seconds, self.position = seed, bad_step, seconds, 0

    def __iter__(self) -> "TinyLoader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        time.sleep(self.seconds)
        generator = np.random.default_rng((self.seed, self.position))
        frames = generator.integers(0, 250, self.shape, np.uint8)
        if self.position + 1 == self.bad_step:
            frames[1, 0, 0, 0, 0] = 255
        records = self.position * self.shape[0] + np.arange(self.shape[0], dtype=np.int64)
        self.position += 1
        return {"frames": frames, "record": records, "start": np.zeros(self.shape[0], np.int64)}

    def get_state(self) -> dict[str, int]:
        return {"position": self.position}

    def set_state(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def faults(self, records: Iterable[int]) -> list[str]:
        return []

    def close(self) -> None: ...


def tiny_config(stage: str = "tokenizer", **training: Any) -> ConfigDict:
    """A configuration whose stage trains for 12 steps of batch 4."""
    config = default_config()
    fields = dict(num_steps=12, batch_size=4, learning_rate=1e-2, log_every=2, eval_every=6, checkpoint_every=4)
    config[stage].training.update(fields | training)
    return config
