"""The loss with several prediction steps is that of passes written out one after another."""

import jax
import jax.numpy as jnp
import pytest

from flam_jax.dynamics.loss import dynamics_loss
from flam_jax.tokenizer import fsq
from tests.dynamics.models import SIZES, apply, make_model


@pytest.mark.parametrize(("passes", "levels"), [(1, None), (3, None), (3, (4, 4, 4))])
def test_loss_is_that_of_passes_written_out(passes, levels):
    model, variables, features = make_model(SIZES[1])
    key = jax.random.key(3)

    def loss(variables):
        return dynamics_loss(model, variables, features, key, kl_weight=0.1, prediction_steps=passes, levels=levels)

    (value, metrics, _), gradients = jax.jit(lambda v: (loss(v), jax.grad(lambda w: loss(w)[0])(v)))(variables)

    output = apply(model, variables, features, rngs={"action": key})
    frames = features.shape[1]
    errors, predicted = [], output.next_features
    for step in range(passes):
        if step > 0:
            fed = predicted if levels is None else fsq.quantize(predicted, levels)
            seen = [features[:, j] if j < step else fed[:, j - 1] for j in range(frames)]
            predicted = apply(model, variables, jnp.stack(seen, axis=1), None, output.actions).next_features
        wrong = predicted[:, step:] - features[:, step + 1 :]
        errors.append(float(jnp.square(wrong).sum(axis=(2, 3, 4)).mean()))
    kl = float(output.action_distribution.kl().sum(axis=(-2, -1)).mean())
    assert float(value) == pytest.approx(sum(errors) / passes + 0.1 * kl, rel=1e-4)
    assert float(metrics[f"prediction_loss_step_{passes}"]) == pytest.approx(errors[-1], rel=1e-4)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
