"""Which slot holds which agent: attention on the agents' cells, and linear probes of their positions.

Attention is normalised over the patches of each slot. Un-normalised it lies: a slot that takes an agent's patch and
all of the floor has a mask of 1 on the agent, and 97 % of what it reads is floor. Normalised it lies too, of slots that
take next to nothing. So both are measured.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
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
    mass, cover = mass_and_cover(context)
    values = attention_binding(mass, cover) | probe_binding(context.probes.fitted, context.probes.tested)
    return values | {"mass_matrix": rounded(mass), "cover_matrix": rounded(cover)}, {}


def mass_and_cover(context: EvaluationContext) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n"]]:
    """`attention_on_cells` of the scored clips, averaged over clips and frames."""
    on_cells = jax.jit(attention_on_cells, static_argnums=2)
    found = on_cells(context.observation.attention, context.cells, context.spec.cells)
    mass, cover = (np.asarray(part).mean(axis=(0, 1)) for part in found)
    return mass, cover


def attention_on_cells(
    attention: Float[Array, "b t k h w"], positions: Int[Array, "b t n 2"], cells: tuple[int, int]
) -> tuple[Float[Array, "b t k n"], Float[Array, "b t k n"]]:
    """How much of each slot lies on each agent's cell, and how much of the cell belongs to the slot.

    Args:
      attention: masks, which sum to 1 over k.
      positions: row and column of each agent's cell.
      cells: rows and columns of cells; patches and cells may have any ratio of sizes.

    Returns:
      `mass`: the share of slot k's attention, normalised over the patches, that lies on agent n's cell; and `cover`:
      the share of agent n's cell that slot k takes (its mask there). Both in [0, 1].
    """
    rows = jnp.asarray(_overlap(cells[0], attention.shape[-2]))[positions[..., 0]]
    columns = jnp.asarray(_overlap(cells[1], attention.shape[-1]))[positions[..., 1]]
    taken = jnp.einsum("btkhw,btnh,btnw->btkn", attention, rows, columns)
    whole = jnp.sum(rows, axis=-1) * jnp.sum(columns, axis=-1)
    # A small constant keeps a slot that takes nothing at 0 instead of 0/0.
    mass = taken / (jnp.sum(attention, axis=(-2, -1))[..., None] + 1e-12)
    return mass, taken / whole[:, :, None]


def _overlap(cells: int, patches: int) -> np.ndarray:
    """[cells, patches]: share of a patch's extent that lies in a cell, along one side."""
    starts, ends = np.arange(patches) / patches, (np.arange(patches) + 1) / patches
    low, high = np.arange(cells)[:, None] / cells, (np.arange(cells)[:, None] + 1) / cells
    return (np.clip(np.minimum(ends, high) - np.maximum(starts, low), 0, None) * patches).astype(np.float32)


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
    "attention_on_cells",
    "is_distinct",
    "mass_and_cover",
    "match",
    "matched_scores",
    "needs",
    "probe_binding",
    "run",
]
