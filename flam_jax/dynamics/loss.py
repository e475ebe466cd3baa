"""The dynamics loss (PAPER: loss): ‖z_{t+1} − ẑ_{t+1}‖² + β Σ_i KL[q(a_t^i) ‖ N(0, I)]."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from flam_jax.dynamics.factorizer import Competition
from flam_jax.dynamics.flam import FlamOutput
from flam_jax.tokenizer import fsq


def dynamics_loss(
    model: nn.Module,
    variables: Any,
    features: Float[Array, "b t h w c"],
    key: PRNGKeyArray,
    *,
    kl_weight: Float[Array, ""] | float,
    prediction_steps: int,
    levels: tuple[int, ...] | None,
    competition: Competition | None = None,
    several: Bool[Array, ""] | bool = True,
    slots_first: Bool[Array, ""] | bool = False,
    actions: Float[Array, "b t-1 k a"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], FlamOutput]:
    """Squared error of predicted features and KL of the latent actions.

    The error is summed over h, w, c and averaged over b and t; the KL is summed over factors and action dimensions and
    averaged over b and t: β means nothing without the reduction.

    With several prediction steps, pass p predicts frame t+1 from the frames that pass p-1 predicted, with the actions
    inferred from the true frames. Every pass handles all frames at once; the error is averaged over the passes.

    Args:
      model: the dynamics, FLAM or a baseline with the same call.
      variables: its parameters.
      features: tokenizer features of consecutive frames.
      key: for sampling the actions.
      kl_weight: β.
      prediction_steps: passes, less than t.
      levels: quantize predictions to these levels before they are fed back; None feeds them back as they are.
      competition: see `Factorizer`.
      several: whether the passes after the first are made; without them the loss is that of one.
      slots_first: whether a model that learns its slots apart learns these now, and nothing else.
      actions: predict with these, of a model that infers none.

    Returns:
      The loss; its parts (`prediction_loss_first` and `_last`: of the first and the last pass that was made;
      `slot_loss` of a model that learns its slots apart); and the output of the first pass.
    """
    output = model.apply(variables, features, competition, actions, rngs={"action": key})
    assert isinstance(output, FlamOutput)
    error = _squared_error(output.next_features, features[:, 1:])
    prediction = last = error
    if prediction_steps > 1:
        frame = jnp.arange(features.shape[1])[:, None, None, None]

        # One pass compiled for all, and computed again for the gradient: unrolled, memory and the time to compile grow
        # with the number of passes.
        @jax.checkpoint
        def predict_again(predicted: Array, step: Array) -> tuple[Array, Array]:
            fed = predicted if levels is None else fsq.quantize(predicted, levels)
            inputs = jnp.where(frame < step, features, jnp.concatenate([features[:, :1], fed], axis=1))
            again = model.apply(variables, inputs, competition, output.actions)
            assert isinstance(again, FlamOutput)
            return again.next_features, _squared_error(again.next_features, features[:, 1:], step)

        def predict_on() -> tuple[Array, Array]:
            _, later = jax.lax.scan(predict_again, output.next_features, jnp.arange(1, prediction_steps))
            return (error + later.sum()) / prediction_steps, later[-1]

        prediction, last = (
            predict_on() if several is True else jax.lax.cond(several, predict_on, lambda: (error, error))
        )
    kl = output.action_kl.sum(axis=-1).mean()
    loss = prediction + kl_weight * kl + output.auxiliary_loss
    metrics = {"prediction_loss": prediction, "kl": kl, "prediction_loss_first": error, "prediction_loss_last": last}
    if slots_first is not False:
        loss = jnp.where(slots_first, output.slot_loss, loss)
        metrics["slot_loss"] = output.slot_loss
    return loss, metrics, output


def _squared_error(
    predicted: Float[Array, "b t h w c"], true: Float[Array, "b t h w c"], first: Array | int = 0
) -> Float[Array, ""]:
    """Summed over h, w, c and averaged over b and the frames from `first` on."""
    error = jnp.square(predicted - true).sum(axis=(-3, -2, -1)).mean(axis=0)
    counts = (jnp.arange(error.shape[0]) >= first).astype(error.dtype)
    return jnp.sum(error * counts) / counts.sum()
