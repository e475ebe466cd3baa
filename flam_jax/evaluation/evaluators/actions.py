"""What the latent actions carry: nats, units in use, and whether the prediction listens to them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import rounded
from flam_jax.metrics import active_units, prediction_errors
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
    inferred = (seen.features, seen.slots, seen.attention, seen.action_mean)
    return prediction_errors(world_model.dynamics, world_model.dynamics_params, *inferred)


__all__ = ["KEY", "needs", "run"]
