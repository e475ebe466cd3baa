"""What the latent actions carry: nats, units in use, and whether the prediction listens to them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import rounded
from flam_jax.metrics import active_units
from flam_jax.world_model import Observation, WorldModel

KEY = ("actions",)


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Nothing: a model without actions carries 0 nats."""
    del data, model
    return ""


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """KL, active units, and the gain of the own actions over another clip's (shuffle gain)."""
    seen, size = context.observation, context.settings.batch_size
    mean = np.asarray(seen.action_mean)
    kl, active = np.asarray(seen.action_kl).mean(axis=(0, 1)), np.asarray(active_units(jnp.asarray(mean)))
    values = {
        "kl": rounded(kl.sum()),
        "kl_per_factor": rounded(kl),
        "active_units": int(active.sum()),
        "active_units_per_factor": active.sum(axis=-1).astype(int).tolist(),
        "units": int(active.size),
    }
    size = min(size, len(mean))
    if size < 2:
        return values | {"shuffle_gain": "not computed: needs evaluation.batch_size and clips of at least 2"}, {}
    sums = np.zeros(2)
    for first in range(0, len(mean) - size + 1, size):
        part = jax.tree.map(lambda leaf, first=first: leaf[first : first + size], seen)
        sums += np.asarray(_errors(context.world_model, part))
    own, shuffled = sums / (len(mean) // size)
    gain = rounded(shuffled / max(own, 1e-8) - 1)
    return values | {"shuffle_gain": gain, "error": rounded(own), "error_shuffled": rounded(shuffled)}, {}


@jax.jit
def _errors(world_model: WorldModel, seen: Observation) -> tuple[jax.Array, jax.Array]:
    return prediction_errors(world_model.dynamics, world_model.dynamics_params, seen)


def prediction_errors(dynamics: nn.Module, params: Any, seen: Observation) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """One-step errors with the inferred actions, and with those of another example of the batch.

    Args:
      dynamics: the dynamics model.
      params: its `params` collection.
      seen: what it sees in at least two clips.

    Returns:
      Squared errors of the predicted features, summed over h, w, c and averaged over examples and frames. The second
      divided by the first, less 1, is the *shuffle gain*: 0 when the prediction ignores the actions.
    """

    def error(actions: Array) -> Array:
        variables, now = {"params": params}, slice(None, -1)
        next_slots = dynamics.apply(variables, seen.slots[:, now], actions, method="predict_slots")
        given = (seen.features[:, now], next_slots, seen.attention[:, now])
        predicted: Any = dynamics.apply(variables, *given, method="aggregate")
        return jnp.mean(jnp.sum((predicted - seen.features[:, 1:]) ** 2, axis=(-3, -2, -1)))

    # Rolled by one instead of permuted: no example keeps its own action, and the number is reproducible.
    return error(seen.action_mean), error(jnp.roll(seen.action_mean, 1, axis=0))


__all__ = ["KEY", "needs", "prediction_errors", "run"]
