"""Which slot holds which agent: attention on the agents' cells, and linear probes of their positions.

Attention is normalised over the patches of each slot. Un-normalised it lies: a slot that takes an agent's patch and
all of the floor has a mask of 1 on the agent, and 97 % of what it reads is floor. Normalised it lies too, of slots that
take next to nothing. So both are measured.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import rounded
from flam_jax.world_model import WorldModel

KEY = ("binding",)


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Cells in which entities are."""
    del model
    return "" if data.cells and data.has("positions") else "the records have no positions in cells"


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """By attention and by linear probes."""
    mass, cover = context.mass_and_cover
    values = attention_binding(mass, cover) | probe_binding(context.probes.fitted, context.probes.tested)
    return values | {"mass_matrix": rounded(mass), "cover_matrix": rounded(cover)}, {}


def match(scores: Float[np.ndarray, "k n"]) -> list[int]:
    """Assigns every agent a slot of its own so that the sum of scores is highest (Hungarian algorithm).

    Returns:
      One slot per agent; -1 for agents left over when there are fewer slots than agents.
    """
    slots, agents = linear_sum_assignment(-np.asarray(scores))
    matched = dict(zip(agents.tolist(), slots.tolist(), strict=True))
    return [matched.get(agent, -1) for agent in range(scores.shape[1])]


def matched_scores(scores: Float[np.ndarray, "k n"], slots: list[int]) -> list[float]:
    """Each agent's score with its own slot; 0 for an agent without one."""
    return [float(scores[slot, agent]) if slot >= 0 else 0.0 for agent, slot in enumerate(slots)]


def is_distinct(scores: Float[np.ndarray, "k n"]) -> bool:
    """Whether the slots with the highest score for each agent are all different ones."""
    best = np.argmax(scores, axis=0)
    return len(set(best.tolist())) == len(best)


def attention_binding(mass: Float[np.ndarray, "k n"], cover: Float[np.ndarray, "k n"]) -> dict[str, Any]:
    """Binding read from attention. A slot holds an agent when it sees little else, and the agent is its own.

    Matched by the product of both: mass alone would take a slot that is all but dead, whose faint mask happens to lie
    on an agent that another slot holds; cover alone would take the slot of the background.

    Args:
      mass: of `attention_on_cells`, averaged over clips and frames.
      cover: likewise.

    Returns:
      For each agent `slots` (its own slot), `attention` (mass of that slot on it), `cover`, `holders` (the slot that
      holds it best, which may hold others too); and `distinct`: whether the holders are all different ones.
    """
    held = mass * cover
    slots = match(held)
    return {
        "attention": np.round(matched_scores(mass, slots), 4).tolist(),
        "cover": np.round(matched_scores(cover, slots), 4).tolist(),
        "slots": slots,
        "holders": held.argmax(axis=0).tolist(),
        "distinct": is_distinct(held),
    }


def probe_binding(fit_accuracy: Float[np.ndarray, "k n"], test_accuracy: Float[np.ndarray, "k n"]) -> dict[str, Any]:
    """Slots matched to agents on the fitted frames, scored on the others: `probe_accuracy`, `probe_per_agent`."""
    per_agent = matched_scores(test_accuracy, match(fit_accuracy))
    return {
        "probe_accuracy": round(float(np.mean(per_agent)), 4),
        "probe_per_agent": np.round(per_agent, 4).tolist(),
    }


__all__ = [
    "KEY",
    "attention_binding",
    "is_distinct",
    "match",
    "matched_scores",
    "needs",
    "probe_binding",
    "run",
]
