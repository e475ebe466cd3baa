"""Cluster accuracy: do latent actions fall into groups that are the true actions? Nobody says which group is which."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment

from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.evaluators.leak import needs
from flam_jax.evaluation.rollouts import rounded

KEY = ("actions", "clusters")
# Latent actions of at most so many different values are codes of a book, and each is a group of its own.
MOST_CODES = 64
RESTARTS = 8  # of k-means, of which the tightest counts
ITERATIONS = 50  # of each


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Against the true actions."""
    chosen = context.record["actions"].astype(np.int32)[:, :-1]
    found = cluster_accuracy(context.observation.action_mean, chosen, context.holders, context.spec.num_actions)
    return found, {}


def cluster_accuracy(
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


__all__ = ["KEY", "cluster_accuracy", "needs", "run"]
