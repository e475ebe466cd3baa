"""The dynamics loss (PAPER: loss): ‖z_{t+1} − ẑ_{t+1}‖² + β Σ_i KL[q(a_t^i) ‖ N(0, I)]."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from flam_jax.dynamics.interface import ModelOutput
from flam_jax.dynamics.outputs import squared_error
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.tokenizer import fsq


def dynamics_loss(
    model: Any,
    variables: Any,
    features: Float[Array, "b t h w c"],
    key: PRNGKeyArray,
    *,
    kl_weight: Float[Array, ""] | float,
    prediction_steps: int,
    levels: tuple[int, ...],
    annealing: SlotAnnealing | None = None,
    multi_step: Bool[Array, ""] | bool = True,
    progress: Float[Array, ""] | None = None,
    true_actions: Shaped[Array, "b t *n"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]], ModelOutput]:
    """The losses of a model's phase, summed: squared error of predicted features, KL of the actions, what a model adds.

    The error is summed over h, w, c and averaged over b and t; the KL is summed over factors and action dimensions and
    averaged over b and t: β means nothing without the reduction.

    With several prediction steps, pass p predicts frame t+1 from the frames that pass p-1 predicted, with the actions
    inferred from the true frames. Every pass handles all frames at once; the error is averaged over the passes.

    Args:
      model: a linen module, a `LatentActionModel`.
      variables: its parameters.
      features: tokenizer features of consecutive frames.
      key: for sampling the actions.
      kl_weight: β.
      prediction_steps: passes, less than t.
      levels: of the tokenizer; predictions are quantized to them before they are fed back. Empty: they are not.
      annealing: of slot attention.
      multi_step: whether the passes after the first are made; without them the loss is that of one.
      progress: share of training, which decides the phase; by default the last phase.
      true_actions: of a model whose `action_source` is `given`.

    Returns:
      The loss; all losses of the model by name (`kl`, others as `NAME_loss`; `prediction_loss_first` and `_last` are
      those of the first and the last pass that was made); and the output of the first pass.
    """
    output = model.apply(variables, features, annealing, None, true_actions, rngs={"action": key})
    assert isinstance(output, ModelOutput)
    error = output.losses["prediction"]
    prediction = last = error
    if prediction_steps > 1:
        frame = jnp.arange(features.shape[1])[:, None, None, None]

        # One pass compiled for all, and computed again for the gradient: unrolled, memory and the time to compile grow
        # with the number of passes.
        @jax.checkpoint
        def predict_again(predicted: Array, step: Array) -> tuple[Array, Array]:
            fed = fsq.quantize(predicted, levels) if levels else predicted
            inputs = jnp.where(frame < step, features, jnp.concatenate([features[:, :1], fed], axis=1))
            again = model.apply(variables, inputs, annealing, output.actions, true_actions)
            assert isinstance(again, ModelOutput)
            return again.next_features, squared_error(again.next_features, features[:, 1:], step)

        def predict_on() -> tuple[Array, Array]:
            _, later = jax.lax.scan(predict_again, output.next_features, jnp.arange(1, prediction_steps))
            return (error + later.sum()) / prediction_steps, later[-1]

        prediction, last = (
            predict_on() if multi_step is True else jax.lax.cond(multi_step, predict_on, lambda: (error, error))
        )
    losses = {**output.losses, "prediction": prediction}
    *earlier, final = model.spec.phases
    loss = _total(losses, final.losses, kl_weight)
    if progress is not None:
        for phase in reversed(earlier):
            loss = jnp.where(progress < phase.end, _total(losses, phase.losses, kl_weight), loss)
    metrics = {name if name == "kl" else f"{name}_loss": value for name, value in losses.items()}
    return loss, {**metrics, "prediction_loss_first": error, "prediction_loss_last": last}, output


def _total(
    losses: Mapping[str, Float[Array, ""]], names: tuple[str, ...], kl_weight: Float[Array, ""] | float
) -> Float[Array, ""]:
    """The paper's loss, as far as it counts, and what a model adds to it."""
    weights = {"prediction": 1.0, "kl": kl_weight}
    paper = [weights[name] * losses[name] for name in names if name in weights]
    return sum(paper, start=jnp.zeros(())) + sum((losses[name] for name in names if name not in weights), 0.0)
