"""Linear regression of continuous actions from latent actions, and of the measured state from slots."""

from typing import Any

import numpy as np

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.probes import linear_r2
from flam_jax.evaluation.rollouts import rounded
from flam_jax.world_model import WorldModel

KEY = ("controls",)
_CONSTANT = 1e-6  # a standard deviation below this share of the size: nothing to explain


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Continuous actions in the records, and latent actions."""
    if not data.has("controls"):
        return "the records have no continuous actions"
    return "" if model.action_dim else "the model has no actions"


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fitted on clips of another split than the scored ones; from all factors together."""
    fit, seen, record = context.fitting, context.observation, context.record
    pairs = {"action": (fit.action_mean, fit.values["controls"][:, :-1], seen.action_mean, record["controls"][:, :-1])}
    if "state" in record:
        pairs["state"] = (fit.slots, fit.values["state"], seen.slots, record["state"])
    values = {}
    for name, parts in pairs.items():
        fit_x, fit_y, x, y = (part.reshape(part.shape[0] * part.shape[1], -1) for part in parts)
        _, scores = linear_r2(fit_x, fit_y, x, y)
        varies = y.std(axis=0) > _CONSTANT * (1 + np.abs(y).max(axis=0))
        per_value = [float(rounded(score)) if there else None for score, there in zip(scores, varies, strict=True)]
        values |= {f"{name}_r2": rounded(scores[varies].mean()) if varies.any() else None, f"{name}_r2_each": per_value}
    return values, {}


__all__ = ["KEY", "needs", "run"]
