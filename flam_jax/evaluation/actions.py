"""What the latent actions carry: bits, units in use, and whether the prediction listens to them."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

# A unit whose posterior mean hardly moves over the data carries nothing (Burda et al. 2016 use the same threshold).
ACTIVE_VARIANCE = 0.01


def active_units(mean: Float[Array, "*b k a"]) -> Float[Array, "k a"]:
    """1 for units whose posterior mean has a variance above 0.01 over all examples and frames, else 0."""
    return (jnp.var(mean, axis=tuple(range(mean.ndim - 2))) > ACTIVE_VARIANCE).astype(jnp.float32)


def prediction_errors(
    dynamics: nn.Module,
    params: Any,
    features: Float[Array, "b t h w c"],
    slots: Float[Array, "b t k d"],
    action_mean: Float[Array, "b t-1 k a"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """One-step errors with the inferred actions, and with those of another example of the batch.

    Args:
      dynamics: the dynamics model.
      params: its `params` collection.
      features: tokenizer features of at least two clips.
      slots: what the model factorizes them into.
      action_mean: and the latent actions that it infers.

    Returns:
      Squared errors of the predicted features, summed over h, w, c and averaged over examples and frames. The second
      divided by the first, less 1, is the *shuffle gain*: 0 when the prediction ignores the actions.
    """

    def error(actions: Array) -> Array:
        variables = {"params": params}
        next_slots = dynamics.apply(variables, slots[:, :-1], actions, method="predict_slots")
        predicted: Any = dynamics.apply(variables, features[:, :-1], next_slots, method="aggregate")
        return jnp.mean(jnp.sum((predicted - features[:, 1:]) ** 2, axis=(-3, -2, -1)))

    # Rolled by one instead of permuted: no example keeps its own action, and the number is reproducible.
    return error(action_mean), error(jnp.roll(action_mean, 1, axis=0))


__all__ = ["ACTIVE_VARIANCE", "active_units", "prediction_errors"]
