"""Linear regression of entities' positions from slots, for positions that are no cells of a grid."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext, frames_first
from flam_jax.evaluation.evaluators.binding import match, matched_scores
from flam_jax.evaluation.probes import linear_r2
from flam_jax.evaluation.rollouts import rounded
from flam_jax.world_model import WorldModel

KEY = ("positions",)


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Positions in pixels."""
    del model
    there = data.has("positions") and not data.cells
    return "" if there else "the records have no positions in pixels"


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fitted on clips of another split than the scored ones."""
    fit = context.fitting
    fitted, tested = explained(
        frames_first(fit.slots),
        frames_first(fit.values["positions"]),
        frames_first(context.observation.slots),
        frames_first(context.record["positions"]),
    )
    slots = match(np.maximum(fitted, 0))
    per_entity = matched_scores(tested, slots)
    return {"r2": rounded(np.mean(per_entity)), "r2_per_entity": rounded(np.asarray(per_entity)), "slots": slots}, {}


def explained(
    fit_slots: Float[np.ndarray, "m k d"],
    fit_positions: Shaped[np.ndarray, "m n 2"],
    slots: Float[np.ndarray, "l k d"],
    positions: Shaped[np.ndarray, "l n 2"],
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n"]]:
    """R² of linear regressions from every slot to every entity's x and y, mean over both.

    Args:
      fit_slots, fit_positions: of the frames that the regressions are fitted on.
      slots, positions: of other frames.

    Returns:
      R² on the fitted frames, and on the others; 1 for exact, 0 for the mean position, below 0 for worse.
    """
    entities = fit_positions.shape[1]
    fit_y, y = (values.reshape(len(values), -1) for values in (fit_positions, positions))
    found = [linear_r2(fit_slots[:, k], fit_y, slots[:, k], y) for k in range(fit_slots.shape[1])]
    fitted, tested = (np.stack(scores).reshape(-1, entities, 2).mean(axis=-1) for scores in zip(*found, strict=True))
    return fitted, tested


__all__ = ["KEY", "explained", "needs", "run"]
