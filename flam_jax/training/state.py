"""The training state, and the optimizer that a stage's configuration describes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.typing import ArrayLike

from flam_jax.config import Config
from flam_jax.training.sharding import path_name


@struct.dataclass
class TrainState:
    """Everything that a step reads and writes; random keys are folded from the seed and `step`, so none is stored."""

    step: Any  # i32[]: updates done
    params: Any
    opt_state: Any
    ema_params: Any = None  # None when the moving average is off

    @property
    def evaluation_params(self) -> Any:
        """The averaged parameters where there are any, else the parameters."""
        return self.params if self.ema_params is None else self.ema_params


def learning_rate(step: ArrayLike, training: Config) -> jax.Array:
    """Learning rate of update `step` (from 0): linear warm-up, then constant or a cosine to 0 at `num_steps`.

    The first update has a non-zero rate, and update `warmup_steps` the full one.
    """
    step = jnp.asarray(step, jnp.float32)
    warm_up = jnp.minimum(1.0, (step + 1) / (training.warmup_steps + 1))
    if training.schedule == "constant":
        decay = jnp.ones_like(step)
    else:
        share = (step - training.warmup_steps) / max(1, training.num_steps - training.warmup_steps)
        decay = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0, 1)))
    return training.learning_rate * warm_up * decay


def make_optimizer(training: Config) -> optax.GradientTransformation:
    """AdamW with clipping by the global norm; only kernels decay."""
    adamw = optax.adamw(
        lambda count: learning_rate(count, training),
        weight_decay=training.weight_decay,
        mask=lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: path_name(path).endswith("kernel"), params
        ),
    )
    clip = optax.clip_by_global_norm(training.clip_norm) if training.clip_norm else optax.identity()
    return optax.chain(clip, adamw)


def new_state(params: Any, optimizer: optax.GradientTransformation, ema: bool) -> TrainState:
    """The state before the first update."""
    ema_params = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params), ema_params=ema_params
    )
