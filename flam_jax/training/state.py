"""The training state, and the optimizer that a stage's configuration describes."""

from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.typing import ArrayLike
from optax.contrib import MuonDimensionNumbers, muon

from flam_jax.config import Config, steps_of
from flam_jax.training.sharding import path_name

# Shares of the training between which something is trained.
Span = tuple[float, float]
WHOLE: Span = (0.0, 1.0)
# Root mean square of AdamW's updates at a learning rate of 1, as it was measured on language models (Liu et al. 2025).
ADAMW_RMS = 0.2
# Layers whose outputs are several axes: those of an attention's heads.
HEADS = ("query", "key", "value", "call")


@struct.dataclass
class TrainState:
    """Everything that a step reads and writes; random keys are folded from the seed and `step`, so none is stored."""

    step: Any  # i32[]: updates done
    params: Any
    opt_state: Any


def learning_rate(step: ArrayLike, training: Config, span: Span = WHOLE) -> jax.Array:
    """Learning rate of update `step` (from 0) of a part that is trained within `span`, as if there were no other steps.

    Linear warm-up from the span's first step, then constant or a cosine to 0 at its last. The first update has a
    non-zero rate, and update `warmup_steps` the full one.
    """
    first, last = steps_of(span, training.num_steps)
    step = jnp.asarray(step, jnp.float32) - first
    warm_up = jnp.minimum(1.0, (step + 1) / (training.warmup_steps + 1))
    if training.schedule == "constant":
        decay = jnp.ones_like(step)
    else:
        share = (step - training.warmup_steps) / max(1, last - first - training.warmup_steps)
        decay = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0, 1)))
    return training.learning_rate * warm_up * decay


def make_optimizer(training: Config, spans: Mapping[str, Span] | None = None) -> optax.GradientTransformationExtraArgs:
    """AdamW or Muon, with clipping by the global norm; only kernels decay.

    Muon (Jordan et al. 2024) orthogonalizes the momentum of every kernel. Its updates are scaled to AdamW's root mean
    square (Liu et al. 2025), so that one learning rate serves both; all other parameters are AdamW's.

    Args:
      training: `config.*.training`.
      spans: when the parts of the parameters are trained, by their first names; all of the time by default. Outside of
        its span a part stays as it is, against momentum and weight decay too, and so do its moments: its averages
        begin, with their corrections, when its training does.

    Its `update` takes the step as `at`.
    """

    def within_span(span: Span) -> optax.GradientTransformation:
        first, _ = steps_of(span, training.num_steps)
        rate = lambda count: learning_rate(first + count, training, span)  # noqa: E731
        decay = training.weight_decay
        if training.optimizer == "adamw":
            return optax.adamw(rate, weight_decay=decay, mask=_kernels)
        matrices = lambda params: jax.tree_util.tree_map_with_path(_matrix, params)  # noqa: E731
        of_kernels = muon(rate, weight_decay=decay, muon_weight_dimension_numbers=matrices, consistent_rms=ADAMW_RMS)
        return optax.partition({True: of_kernels, False: optax.adamw(rate, weight_decay=0.0)}, _kernels)

    def within(span: Span) -> optax.GradientTransformation:
        first, last = steps_of(span, training.num_steps)

        def trained(step: ArrayLike, **arguments: Any) -> jax.Array:
            del step  # how often it was called, without the steps that were skipped
            return (arguments["at"] >= first) & (arguments["at"] < last)

        return optax.conditionally_mask(within_span(span), trained, forward_extra_args=True)

    clip = optax.clip_by_global_norm(training.clip_norm) if training.clip_norm else optax.identity()
    if not spans or set(spans.values()) == {WHOLE}:
        return optax.with_extra_args_support(optax.chain(clip, within_span(WHOLE)))
    name = lambda span: "from_{:g}_to_{:g}".format(*span)  # noqa: E731
    optimizers: dict[Hashable, optax.GradientTransformation] = {name(span): within(span) for span in spans.values()}
    return optax.chain(clip, optax.partition(optimizers, {part: name(span) for part, span in spans.items()}))


def _kernels(params: Any) -> Any:
    """Which of the parameters are kernels."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path_name(path).endswith("kernel"), params)


def _matrix(path: tuple[Any, ...], parameter: Any) -> MuonDimensionNumbers:
    """Which axes of a kernel are its inputs and outputs."""
    of_heads = any(path_name(path).endswith(f"{name}/kernel") for name in HEADS)
    inputs = 1 if of_heads else parameter.ndim - 1
    return MuonDimensionNumbers(tuple(range(inputs)), tuple(range(inputs, parameter.ndim)))


def new_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))
