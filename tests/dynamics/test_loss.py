"""The loss with multi_step prediction steps is that of passes written out one after another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flam_jax.dynamics.loss import dynamics_loss
from flam_jax.tokenizer import fsq
from tests.dynamics.models import make, make_model, max_difference

# The passes are the matter here, not the layers: every pass that is written out is compiled with all of them.
LEVELS = (4, 4, 4)  # of the three channels of the features
MODEL = functools.partial(make_model, (2, 4, 2, 3, 3, 2, 1), num_iterations=2)


def test_loss_is_that_of_passes_written_out():
    model, variables, features = MODEL()
    key, passes = jax.random.key(3), 3

    def loss(variables):
        value, metrics, _ = dynamics_loss(
            model, variables, features, key, kl_weight=0.1, prediction_steps=passes, levels=LEVELS
        )
        return value, metrics

    apply = jax.jit(model.apply)  # one pass is compiled, and called multi_step times

    def written_out(variables):
        run = functools.partial(apply, variables)
        output = run(features, rngs={"action": key})
        frames = features.shape[1]
        errors, predicted = [], output.next_features
        for step in range(passes):
            if step > 0:
                fed = fsq.quantize(predicted, LEVELS)
                seen = [features[:, j] if j < step else fed[:, j - 1] for j in range(frames)]
                predicted = run(jnp.stack(seen, axis=1), None, output.actions).next_features
            wrong = predicted[:, step:] - features[:, step + 1 :]
            errors.append(jnp.square(wrong).sum(axis=(2, 3, 4)).mean())
        kl = output.action_kl.sum(axis=-1).mean()
        return sum(errors) / passes + 0.1 * kl, errors[-1]

    (value, metrics), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
    (expected, last), expected_gradients = jax.value_and_grad(written_out, has_aux=True)(variables)
    assert float(value) == pytest.approx(float(expected), rel=1e-4)
    assert float(metrics["prediction_loss_last"]) == pytest.approx(float(last), rel=1e-4)
    largest = max(float(np.abs(np.asarray(leaf)).max()) for leaf in jax.tree.leaves(expected_gradients))
    assert max_difference(gradients, expected_gradients) < 1e-4 * largest


def test_passes_after_the_first_can_wait():
    """As training decides it, by a value that is not known when the step is compiled."""
    model, variables, features = MODEL()

    @functools.partial(jax.jit, static_argnames="passes")
    def gradient(multi_step, passes):
        def loss(variables):
            key = jax.random.key(3)
            kwargs = dict(kl_weight=0.1, prediction_steps=passes, levels=LEVELS, multi_step=multi_step)
            return dynamics_loss(model, variables, features, key, **kwargs)[0]

        return jax.value_and_grad(loss)(variables)

    one, three = gradient(True, 1), gradient(True, 3)
    assert max_difference(gradient(jnp.asarray(False), 3), one) < 1e-4
    assert max_difference(gradient(jnp.asarray(True), 3), three) < 1e-4
    assert max_difference(one, three) > 1e-2


@pytest.mark.parametrize("name", ["flam", pytest.param("paper", marks=pytest.mark.long)])
def test_steps_of_training_lower_the_loss(name):
    model, _, features, _ = make(name)
    variables = jax.jit(model.init)({"params": jax.random.key(0), "action": jax.random.key(1)}, features)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(variables, state):
        def loss(variables):
            kwargs = dict(kl_weight=2e-4, prediction_steps=1, levels=LEVELS)
            return dynamics_loss(model, variables, features, jax.random.key(2), **kwargs)[0]

        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, value

    state, losses = jax.jit(optimizer.init)(variables), []
    for _ in range(30):
        variables, state, value = step(variables, state)
        losses.append(float(value))
    assert losses[-1] < 0.7 * losses[0]
