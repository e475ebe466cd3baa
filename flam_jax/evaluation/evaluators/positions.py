"""Linear regression of entities' positions from slots, for positions that are no cells of a grid."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext, frames_first
from flam_jax.evaluation.evaluators.binding import match, matched_scores
from flam_jax.evaluation.rollouts import rounded
from flam_jax.world_model import WorldModel

KEY = ("positions",)
PENALTY = 1e-3  # of the squared slopes, for a standardised slot


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
        frames_first(fit.positions),
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
    mean, deviation = fit_slots.mean(axis=0), fit_slots.std(axis=0) + 1e-6
    fit_x, x = ((values - mean) / deviation for values in (fit_slots, slots))
    entities = fit_positions.shape[1]
    fit_y, y = (values.reshape(len(values), -1).astype(np.float64) for values in (fit_positions, positions))
    center = fit_y.mean(axis=0)
    found: list[list[np.ndarray]] = [[], []]
    for k in range(fit_slots.shape[1]):
        inputs = fit_x[:, k].astype(np.float64)
        square = inputs.T @ inputs / len(inputs) + PENALTY * np.eye(inputs.shape[1])
        slope = np.linalg.solve(square, inputs.T @ (fit_y - center) / len(inputs))
        for scores, seen, target in zip(found, (inputs, x[:, k]), (fit_y, y), strict=True):
            error = np.square(seen @ slope + center - target).sum(axis=0)
            spread = np.square(target - target.mean(axis=0)).sum(axis=0)
            scores.append((1 - error / np.maximum(spread, 1e-12)).reshape(entities, 2).mean(axis=-1))
    return np.asarray(found[0]), np.asarray(found[1])


__all__ = ["KEY", "explained", "needs", "run"]
