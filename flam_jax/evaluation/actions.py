"""What the latent actions carry: bits, units in use, and whether the prediction listens to them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment

from flam_jax.evaluation.rollouts import rounded

# Latent actions of at most so many different values are codes of a book, and each is a group of its own.
MOST_CODES = 64
RESTARTS = 8  # of k-means, of which the tightest counts
ITERATIONS = 50  # of each
FORWARD, BLOCKED, DIRECTIONS = 2, 3, 4
DIRECTED_ACTIONS = (BLOCKED + 1) * DIRECTIONS


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


def action_map(
    action_mean: Float[np.ndarray, "b t k a"],
    true_actions: Int[np.ndarray, "b t n"],
    slots: list[int],
    choices: int,
) -> dict[str, Any]:
    """Do latent actions fall into groups that are the true actions? Nobody tells which group is which.

    The latent actions of an agent's slot are grouped, by k-means with as many groups as there are true actions, or by
    their code. Groups and true actions are matched one to one so that most frames fit (Hungarian algorithm); a group
    that is left over fits no action.

    Args:
      action_mean: means of the latent actions.
      true_actions: numbers of the true ones.
      slots: the slot that holds each agent.
      choices: how many true actions there are.

    Returns:
      `accuracy`: share of the frames whose group is that of their true action, averaged over agents, and
      `accuracy_per_agent`; `confusion`: for every true action, the shares of the actions that its frames are mapped to
      (the last column: to none), averaged over agents; `chance`: what one group for everything would reach.
    """
    tables = []
    for agent, slot in enumerate(slots):
        latent = np.asarray(action_mean)[:, :, slot].reshape(-1, action_mean.shape[-1])
        true = true_actions[:, :, agent].reshape(-1)
        group = _groups(latent, choices)
        # At least as many groups as actions, empty ones if need be: every action is matched.
        table = np.zeros((choices, max(choices, group.max() + 1)), np.int64)
        np.add.at(table, (true, group), 1)
        _, columns = linear_sum_assignment(-table)
        matched = table[:, columns]
        tables.append(np.column_stack([matched, table.sum(axis=1) - matched.sum(axis=1)]))
    shares = [float(np.trace(table) / table.sum()) for table in tables]
    confusion = np.mean([table / np.maximum(table.sum(axis=1, keepdims=True), 1) for table in tables], axis=0)
    chance = np.mean([table.sum(axis=1).max() / table.sum() for table in tables])
    return {
        "accuracy": rounded(np.mean(shares)),
        "accuracy_per_agent": rounded(shares),
        "confusion": rounded(confusion),
        "chance": rounded(chance),
    }


def directed_actions(
    true_actions: Int[np.ndarray, "b t n"],
    positions: Int[np.ndarray, "b t n 2"],
    directions: Int[np.ndarray, "b t n"],
) -> Int[np.ndarray, "b t-1 n"]:
    """What agents do as it looks from above: a step to the right is another change of the frame than one to the left.

    Args:
      true_actions: 0 turns left, 1 right, 2 goes forward; that of the last frame included.
      positions: of the agents.
      directions: in which they look, 0 to 3.

    Returns:
      One of `DIRECTED_ACTIONS`: each direction with each action, and with a step that something blocked.
    """
    now = true_actions[:, :-1]
    blocked = (now == FORWARD) & (positions[:, 1:] == positions[:, :-1]).all(axis=-1)
    return np.where(blocked, BLOCKED, now) * DIRECTIONS + directions[:, :-1]


def _groups(latent: np.ndarray, count: int) -> np.ndarray:
    """Number of the group of every row."""
    values, code = np.unique(latent.round(6), axis=0, return_inverse=True)
    if len(values) <= MOST_CODES:
        return code.reshape(-1)
    best, tightest = np.zeros(len(latent), np.int64), np.inf
    for seed in range(RESTARTS):
        centres, group = kmeans2(
            latent.astype(np.float64), count, ITERATIONS, minit="++", rng=np.random.default_rng(seed)
        )
        spread = np.square(latent - centres[group]).sum()
        if spread < tightest:
            best, tightest = group, spread
    return best


__all__ = [
    "DIRECTED_ACTIONS",
    "action_map",
    "directed_actions",
    "prediction_errors",
]
