"""Linear probes: what can be read from slots and latent actions?"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

_PENALTY = 1e-3  # of the squared slopes of a linear regression, for standardised inputs


@dataclasses.dataclass(frozen=True)
class Probes:
    """Probes of every entity's cell from every slot, fitted on some frames and judged on others.

    Attributes:
      fitted: accuracy on the fitted frames, f32[k n].
      tested: on the others.
      likelihood: that is given to the true cell in every one of the others, f32[l k n].
    """

    fitted: np.ndarray
    tested: np.ndarray
    likelihood: np.ndarray


def fit_probes(
    fit_slots: Float[np.ndarray, "m k d"],
    fit_cells: Int[np.ndarray, "m n 2"],
    test_slots: Float[np.ndarray, "l k d"],
    test_cells: Int[np.ndarray, "l n 2"],
    classes: int,
) -> Probes:
    """As `probe_cells`, with numpy arrays."""
    found = probe_cells(fit_slots, fit_cells, test_slots, test_cells, classes)
    return Probes(*(np.asarray(values) for values in found))


@functools.partial(jax.jit, static_argnames=("classes", "iterations"))
def probe_cells(
    fit_slots: Float[Array, "m k d"],
    fit_positions: Int[Array, "m n 2"],
    test_slots: Float[Array, "l k d"],
    test_positions: Int[Array, "l n 2"],
    classes: int,
    iterations: int = 150,
) -> tuple[Float[Array, "k n"], Float[Array, "k n"], Float[Array, "l k n"]]:
    """Linear probes from every slot to every entity's row and column (PAPER: I, informativeness).

    Multinomial logistic regressions, fitted together by L-BFGS from zero on standardised slots with a weak L2 penalty.

    Args:
      fit_slots: slots of frames that the probes are fitted on.
      fit_positions: row and column classes of these frames.
      test_slots: slots of other frames.
      test_positions: their classes.
      classes: number of classes of a row and of a column.
      iterations: of L-BFGS.

    Returns:
      Accuracy on the fitted and on the other frames: share of frames with both row and column right. And the likelihood
      in each of the other frames: the probability given to the true row and column.
    """
    mean = jnp.mean(fit_slots, axis=0, keepdims=True)
    deviation = jnp.std(fit_slots, axis=0, keepdims=True) + 1e-6
    inputs = (fit_slots - mean) / deviation
    targets = jax.nn.one_hot(fit_positions, classes)
    k, d, n = fit_slots.shape[1], fit_slots.shape[2], fit_positions.shape[1]

    def logits(weights: dict[str, Array], slots: Array) -> Array:
        return jnp.einsum("mkd,kdnrg->mknrg", slots, weights["slope"]) + weights["offset"][None]

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

    weights = {"slope": jnp.zeros((k, d, n, 2, classes)), "offset": jnp.zeros((k, n, 2, classes))}
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


def linear_r2(
    fit_inputs: Float[np.ndarray, "m d"],
    fit_targets: Shaped[np.ndarray, "m n"],
    inputs: Float[np.ndarray, "l d"],
    targets: Shaped[np.ndarray, "l n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """R² of ridge regressions on standardised inputs.

    Args:
      fit_inputs, fit_targets: examples that they are fitted on.
      inputs, targets: other examples.

    Returns:
      Of every target, R² on the fitted examples and on the others: 1 for exact, 0 for the mean, below 0 for worse.
    """
    mean, deviation = fit_inputs.mean(axis=0), fit_inputs.std(axis=0) + 1e-6
    fit_x, x = (((values - mean) / deviation).astype(np.float64) for values in (fit_inputs, inputs))
    fit_y, y = (values.astype(np.float64) for values in (fit_targets, targets))
    center = fit_y.mean(axis=0)
    square = fit_x.T @ fit_x / len(fit_x) + _PENALTY * np.eye(fit_x.shape[1])
    slope = np.linalg.solve(square, fit_x.T @ (fit_y - center) / len(fit_x))
    scores = []
    for seen, target in ((fit_x, fit_y), (x, y)):
        error = np.square(seen @ slope + center - target).sum(axis=0)
        spread = np.square(target - target.mean(axis=0)).sum(axis=0)
        scores.append(1 - error / np.maximum(spread, 1e-12))
    return scores[0], scores[1]


__all__ = ["Probes", "fit_probes", "linear_r2", "probe_cells"]
