"""Which slot holds which agent: attention on the agents' cells, and linear probes of their positions.

Attention is normalised over the patches of each slot. Un-normalised it lies: a slot that takes an agent's patch and
all of the floor has a mask of 1 on the agent, and 97 % of what it reads is floor. Normalised it lies too, of slots that
take next to nothing. So both are measured.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from scipy.optimize import linear_sum_assignment


def attention_on_cells(
    attention: Float[Array, "b t k h w"], positions: Int[Array, "b t n 2"], grid_size: int
) -> tuple[Float[Array, "b t k n"], Float[Array, "b t k n"]]:
    """How much of each slot lies on each agent's cell, and how much of the cell belongs to the slot.

    Args:
      attention: masks, which sum to 1 over k.
      positions: row and column of each agent's cell.
      grid_size: cells per side; patches and cells may have any ratio of sizes.

    Returns:
      `mass`: the share of slot k's attention, normalised over the patches, that lies on agent n's cell; and `cover`:
      the share of agent n's cell that slot k takes (its mask there). Both in [0, 1].
    """
    rows = jnp.asarray(_overlap(grid_size, attention.shape[-2]))[positions[..., 0]]
    columns = jnp.asarray(_overlap(grid_size, attention.shape[-1]))[positions[..., 1]]
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


@functools.partial(jax.jit, static_argnames=("grid_size", "iterations"))
def probe_accuracy(
    fit_slots: Float[Array, "m k d"],
    fit_positions: Int[Array, "m n 2"],
    test_slots: Float[Array, "l k d"],
    test_positions: Int[Array, "l n 2"],
    grid_size: int,
    iterations: int = 150,
) -> tuple[Float[Array, "k n"], Float[Array, "k n"], Float[Array, "l k n"]]:
    """Linear probes from every slot to every agent's row and column (PAPER: I, informativeness).

    Multinomial logistic regressions, fitted together by L-BFGS from zero on standardised slots with a weak L2 penalty.

    Args:
      fit_slots: slots of frames that the probes are fitted on.
      fit_positions: row and column classes of these frames.
      test_slots: slots of other frames.
      test_positions: their classes.
      grid_size: number of classes of a row and of a column.
      iterations: of L-BFGS.

    Returns:
      Accuracy on the fitted and on the other frames: share of frames with both row and column right. And the likelihood
      in each of the other frames: the probability given to the true row and column.
    """
    mean = jnp.mean(fit_slots, axis=0)
    deviation = jnp.std(fit_slots, axis=0) + 1e-6
    inputs = (fit_slots - mean) / deviation
    targets = jax.nn.one_hot(fit_positions, grid_size)
    k, d, n = fit_slots.shape[1], fit_slots.shape[2], fit_positions.shape[1]

    def logits(weights: dict[str, Array], slots: Array) -> Array:
        return jnp.einsum("mkd,kdnrg->mknrg", slots, weights["slope"]) + weights["offset"]

    def loss(weights: dict[str, Array]) -> Array:
        cross_entropy = -jnp.sum(targets[:, None] * jax.nn.log_softmax(logits(weights, inputs)), axis=-1)
        # Summed over the probes, which are independent of each other; averaged over frames.
        return jnp.sum(jnp.mean(cross_entropy, axis=0)) + 1e-4 * jnp.sum(weights["slope"] ** 2)

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def improve(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        weights, state = carry
        value, gradient = value_and_grad(weights, state=state)
        updates, state = optimizer.update(gradient, state, weights, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(weights, updates), state), None

    weights = {"slope": jnp.zeros((k, d, n, 2, grid_size)), "offset": jnp.zeros((k, n, 2, grid_size))}
    (weights, _), _ = jax.lax.scan(improve, (weights, optimizer.init(weights)), None, length=iterations)

    def accuracy(slots: Array, positions: Array) -> Array:
        guess = jnp.argmax(logits(weights, (slots - mean) / deviation), axis=-1)
        return jnp.mean(jnp.all(guess == positions[:, None], axis=-1), axis=0)

    scores = jnp.take_along_axis(
        jax.nn.log_softmax(logits(weights, (test_slots - mean) / deviation)),
        test_positions[:, None, ..., None],
        axis=-1,
    )
    likelihood = jnp.exp(jnp.sum(scores[..., 0], axis=-1))
    return accuracy(fit_slots, fit_positions), accuracy(test_slots, test_positions), likelihood


def probe_binding(fit_accuracy: Float[np.ndarray, "k n"], test_accuracy: Float[np.ndarray, "k n"]) -> dict[str, Any]:
    """Slots matched to agents on the fitted frames, scored on the others: `probe_accuracy`, `probe_per_agent`."""
    per_agent = matched_scores(test_accuracy, match(fit_accuracy))
    return {
        "probe_accuracy": round(float(np.mean(per_agent)), 4),
        "probe_per_agent": np.round(per_agent, 4).tolist(),
    }


__all__ = [
    "attention_binding",
    "attention_on_cells",
    "is_distinct",
    "match",
    "matched_scores",
    "probe_accuracy",
    "probe_binding",
]
