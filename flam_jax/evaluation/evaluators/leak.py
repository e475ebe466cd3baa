"""Action leak: does a latent action tell where the agent will be, instead of where it goes?

A latent action with room to spare can carry the next *state*. Then a rollout looks perfect because the answer comes
with the question, and the action means nothing elsewhere on the board. Probes read an agent's next absolute position
from its slot's action alone. Free of leak this is no better than the most frequent cell; what the action *should* give
is what it adds to the current position, and the true action, which the model never saw.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.evaluators import binding
from flam_jax.evaluation.rollouts import rounded
from flam_jax.world_model import WorldModel

KEY = ("actions", "leak")

HIDDEN = 64
ROW, COLUMN, MOVE, ACTION = 0, 1, 2, 3
MOVES = 9


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Cells and true actions of entities, and latent actions."""
    if not model.action_dim:
        return "the model has no actions"
    return binding.needs(data, model) or ("" if data.actors == data.entities else "no entity's true actions are known")


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fitted on clips of another split than the scored ones."""
    fit, record = context.fitting, context.record
    test = (context.observation.action_mean, context.cells, record["actions"].astype(np.int32))
    fitted = (fit.action_mean, fit.cells, fit.values["actions"].astype(np.int32))
    return action_leak(fitted, test, context.holders, max(context.spec.cells)), {}


@functools.partial(jax.jit, static_argnames=("classes", "hidden", "iterations"))
def probe(
    fit_inputs: Float[Array, "n m i"],
    fit_targets: Int[Array, "n m r"],
    test_inputs: Float[Array, "n l i"],
    test_targets: Int[Array, "n l r"],
    classes: int,
    hidden: int = 0,
    iterations: int = 300,
) -> Bool[Array, "n l r"]:
    """Small classifiers, one per agent, judged on examples that they were not fitted on.

    The last fifth of the fitted examples decides when to stop: without it a probe of much noise scores below guessing.

    Args:
      fit_inputs: m examples of i numbers for each of n agents.
      fit_targets: r class numbers for each example, all read by one network.
      test_inputs: other examples.
      test_targets: their classes.
      classes: number of classes.
      hidden: units of the hidden layer; 0 makes the probe linear.
      iterations: of Adam on all examples at once.

    Returns:
      Which of the answers are right.
    """
    held = fit_inputs.shape[1] // 5

    def one(fit_x: Array, fit_y: Array, test_x: Array, test_y: Array) -> Array:
        mean, deviation = jnp.mean(fit_x, axis=0, keepdims=True), jnp.std(fit_x, axis=0, keepdims=True) + 1e-6
        fit_x, test_x = (fit_x - mean) / deviation, (test_x - mean) / deviation
        (fit_x, held_x), (fit_y, held_y) = (jnp.split(values, [len(values) - held]) for values in (fit_x, fit_y))
        inputs, heads = fit_x.shape[-1], fit_y.shape[-1]
        first, second = jax.random.split(jax.random.key(0))
        weights = {"out": jnp.zeros((hidden or inputs, heads, classes)), "bias": jnp.zeros((heads, classes))}
        if hidden:
            weights["in"] = jax.random.normal(first, (inputs, hidden)) * (2 / inputs) ** 0.5
            weights["offset"] = jax.random.normal(second, (hidden,)) * 0.1

        def logits(weights: dict[str, Array], x: Array) -> Array:
            if hidden:
                x = jax.nn.relu(x @ weights["in"] + weights["offset"][None])
            return jnp.einsum("mi,irc->mrc", x, weights["out"]) + weights["bias"][None]

        def losses(weights: dict[str, Array], x: Array, y: Array) -> Array:
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(weights, x), y), axis=0)

        optimizer = optax.adamw(optax.cosine_decay_schedule(0.02, iterations), weight_decay=0.01)

        def improve(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
            weights, state, lowest, answers = carry
            # Every head stops at its own best moment.
            judged = losses(weights, held_x, held_y)
            now = jnp.argmax(logits(weights, test_x), axis=-1)
            answers = jnp.where(judged < lowest, now, answers)
            gradient = jax.grad(lambda w: jnp.sum(losses(w, fit_x, fit_y)))(weights)
            updates, state = optimizer.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state, jnp.minimum(lowest, judged), answers), None

        start = (weights, optimizer.init(weights), jnp.full(heads, jnp.inf), jnp.zeros(test_y.shape, jnp.int32))
        (_, _, _, answers), _ = jax.lax.scan(improve, start, None, length=iterations)
        return answers == test_y

    return jax.vmap(one)(fit_inputs, fit_targets, test_inputs, test_targets)


def action_leak(
    fit: tuple[Float[np.ndarray, "b t k a"], Int[np.ndarray, "b t+1 n 2"], Int[np.ndarray, "b t+1 n"]],
    test: tuple[Float[np.ndarray, "l s k a"], Int[np.ndarray, "l s+1 n 2"], Int[np.ndarray, "l s+1 n"]],
    slots: list[int],
    grid_size: int,
) -> dict[str, Any]:
    """Probes of an agent's next cell, of its move and of its true action, from its slot's latent action.

    Args:
      fit: means of the latent actions, rows and columns of the agents before and after them, and the true actions (of
        the last frame, which leads to no other, too), to fit the probes on.
      test: the same of other clips.
      slots: the slot that holds each agent.
      grid_size: cells per side.

    Returns:
      `position` (both row and column right), `move` (staying, or one cell up, down, left or right) and `true_action`,
      each with accuracies averaged over agents: `action_linear` and `action_mlp` (from the action alone),
      `action_and_position` (MLP, also given the current cell), `position_only` (MLP, what can be guessed without the
      action), `chance` (the most frequent answer); and `action_mlp_per_agent`.
    """
    fit_inputs, fit_targets, size = _examples(*fit, slots, grid_size)
    test_inputs, test_targets, _ = _examples(*test, slots, grid_size)
    is_action = np.arange(fit_inputs.shape[-1]) < size
    masks = {
        "action_linear": (is_action, 0),
        "action_mlp": (is_action, HIDDEN),
        "action_and_position": (np.ones_like(is_action), HIDDEN),
        "position_only": (~is_action, HIDDEN),
    }
    result: dict[str, Any] = {"position": {}, "move": {}, "true_action": {}}
    for name, (mask, hidden) in masks.items():
        # Inputs that are not given are zero, not absent: one compilation serves all of them.
        inputs = (fit_inputs * mask, test_inputs * mask)
        right = probe(inputs[0], fit_targets, inputs[1], test_targets, max(grid_size, MOVES), hidden)
        for kind, share in _shares(np.asarray(right)).items():
            result[kind][name] = rounded(share.mean())
            if name == "action_mlp":
                result[kind]["action_mlp_per_agent"] = rounded(share)
    result["position"]["chance"] = rounded(_most_frequent(fit_targets, test_targets, [ROW, COLUMN]))
    result["move"]["chance"] = rounded(_most_frequent(fit_targets, test_targets, [MOVE]))
    result["true_action"]["chance"] = rounded(_most_frequent(fit_targets, test_targets, [ACTION]))
    return result


def _shares(right: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "position": np.all(right[..., [ROW, COLUMN]], axis=-1).mean(axis=1),
        "move": right[..., MOVE].mean(axis=1),
        "true_action": right[..., ACTION].mean(axis=1),
    }


def _examples(
    actions: np.ndarray, positions: np.ndarray, true_actions: np.ndarray, slots: list[int], grid_size: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Inputs (action, then current cell) and targets of the probes, agents first; and the size of an action."""
    agents = len(slots)
    own = np.moveaxis(np.asarray(actions)[:, :, slots], 2, 0).reshape(agents, -1, actions.shape[-1])
    now = np.moveaxis(positions[:, :-1], 2, 0).reshape(agents, -1, 2)
    after = np.moveaxis(positions[:, 1:], 2, 0).reshape(agents, -1, 2)
    cell = np.eye(grid_size, dtype=np.float32)[now].reshape(agents, -1, 2 * grid_size)
    step = np.clip(after - now, -1, 1) + 1
    move = step[..., :1] * 3 + step[..., 1:]
    chosen = np.moveaxis(true_actions[:, :-1], 2, 0).reshape(agents, -1, 1)
    inputs = np.concatenate([own, cell], axis=-1, dtype=np.float32)
    return inputs, np.concatenate([after, move, chosen], axis=-1, dtype=np.int32), own.shape[-1]


def _most_frequent(fit_targets: np.ndarray, test_targets: np.ndarray, heads: list[int]) -> float:
    accuracies = []
    for fit, test in zip(fit_targets[..., heads], test_targets[..., heads], strict=True):
        answers, counts = np.unique(fit, axis=0, return_counts=True)
        accuracies.append(np.mean(np.all(test == answers[np.argmax(counts)], axis=-1)))
    return float(np.mean(accuracies))


__all__ = ["KEY", "action_leak", "needs", "probe", "run"]
