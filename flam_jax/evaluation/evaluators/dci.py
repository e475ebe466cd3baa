"""Disentanglement, completeness and informativeness of slots (PAPER: representation; Eastwood & Williams 2018).

The importance of a slot for an entity is the likelihood that a linear probe of the slot gives to the entity's true
position, less what is had without any slot: else a slot that knows one entity and nothing of the others would not count
as perfectly disentangled. What may be chance counts as nothing: else the least of differences would be shares of
nothing.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from flam_jax.evaluation.context import EvaluationContext, frames_first
from flam_jax.evaluation.evaluators.binding import match, matched_scores, needs

KEY = ("dci",)

# Standard errors by which a slot must do better than no slot.
SIGNIFICANT = 3.0


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """From the probes that binding is measured with."""
    probes, classes = context.probes, max(context.spec.cells)
    chance = chance_likelihood(frames_first(context.fitting.cells), frames_first(context.cells), classes)
    accuracy = round(float(np.mean(matched_scores(probes.tested, match(probes.fitted)))), 4)
    return dci(probes.likelihood, chance, accuracy), {}


def chance_likelihood(
    fit_positions: Int[np.ndarray, "m n 2"], test_positions: Int[np.ndarray, "l n 2"], classes: int
) -> Float[np.ndarray, "l n"]:
    """Probability of the true row and column of every frame, by the frequencies in the fitted frames alone."""
    frequency = np.stack(
        [
            [np.bincount(fit_positions[:, agent, axis], minlength=classes) / len(fit_positions) for axis in range(2)]
            for agent in range(fit_positions.shape[1])
        ]
    )  # n 2 classes
    agents = np.arange(fit_positions.shape[1])
    rows, columns = (frequency[agents, axis, test_positions[:, :, axis]] for axis in range(2))
    return rows * columns


def dci(likelihood: Float[np.ndarray, "l k n"], chance: Float[np.ndarray, "l n"], accuracy: float) -> dict[str, Any]:
    """The three numbers, each from 0 to 1.

    Disentanglement: is a slot predictive of one entity only? 1 less the entropy of its importances over the entities,
    averaged over the slots by how predictive they are. Completeness: is one slot only predictive of an entity? 1 less
    the entropy of the importances over the slots, averaged over the entities. Entropies are in units of that of equal
    importances.

    Args:
      likelihood: of every entity's position by a probe of every slot, in every frame.
      chance: of every entity's position without a slot, in every frame.
      accuracy: of the probes of matched slots.

    Returns:
      `disentanglement`, `completeness` and `informativeness`; a sentence where a number is not defined.
    """
    gain = np.asarray(likelihood, np.float64) - chance[:, None]
    importance, error = gain.mean(axis=0), gain.std(axis=0) / np.sqrt(len(gain))
    importance = np.where(importance > SIGNIFICANT * error, importance, 0.0)
    slots, agents = importance.shape
    result: dict[str, Any] = {"informativeness": accuracy}
    if agents > 1:
        weight = importance.sum(axis=1) / max(importance.sum(), 1e-12)
        result["disentanglement"] = round(float((weight * (1 - _entropy(importance, axis=1))).sum()), 4)
    else:
        result["disentanglement"] = "not defined: one agent"
    if slots > 1:
        result["completeness"] = round(float((1 - _entropy(importance, axis=0)).mean()), 4)
    else:
        result["completeness"] = "not defined: one slot"
    return result


def _entropy(importance: Float[np.ndarray, "k n"], axis: int) -> Float[np.ndarray, " m"]:
    """Of the shares along an axis, 0 to 1; 1 where there is nothing to share."""
    total = importance.sum(axis=axis, keepdims=True)
    share = importance / np.maximum(total, 1e-12)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=axis) / np.log(importance.shape[axis])
    return np.where(total.squeeze(axis) > 1e-9, entropy, 1.0)


__all__ = ["KEY", "chance_likelihood", "dci", "needs", "run"]
