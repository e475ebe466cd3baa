"""Features of the user's own network in place of a tokenizer's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.dynamics.loss import dynamics_loss
from flam_jax.tokenizer.decoders import PatchDecoder
from flam_jax.tokenizer.precomputed import PrecomputedFeatures
from flam_jax.world_model import WorldModel
from tests.tiny import tiny_config, tiny_model

SHAPE = (4, 6, 5)


def model() -> PrecomputedFeatures:
    return PrecomputedFeatures(PatchDecoder(channels=8, patch_size=4, num_layers=1), SHAPE)


def features(*batch: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(0).normal(3.0, 2.0, (*batch, *SHAPE)), jnp.float32)


@pytest.mark.parametrize("scale", [0.1, 1.0, 1000.0])
def test_every_patch_has_mean_0_and_variance_1_whatever_the_networks_scale(scale: float) -> None:
    encoded = model().apply({}, features(2, 3, scale=scale), method="encode")
    np.testing.assert_allclose(encoded.mean(axis=-1), 0.0, atol=1e-4)
    np.testing.assert_allclose(encoded.var(axis=-1), 1.0, rtol=0.02)
    np.testing.assert_allclose(encoded, model().apply({}, features(2, 3), method="encode"), atol=0.02)


def test_predictions_are_not_rounded_and_are_decoded_as_they_are() -> None:
    x = features(2)
    variables = model().init(jax.random.key(0), x)
    assert jnp.array_equal(model().apply(variables, x, method="quantize"), x)
    output = model().apply(variables, x)
    decoded = model().apply(variables, output.features, method="decode")
    assert decoded.shape == (2, 16, 24, 3)
    np.testing.assert_array_equal(decoded, output.reconstruction.clip(0, 1))


def shown_features() -> WorldModel:
    """The tiny world model on features of its own grid and channels in place of frames."""
    tokenized = tiny_model()
    decoder = PatchDecoder(channels=8, patch_size=4, num_layers=1)
    tokenizer = PrecomputedFeatures(decoder, (4, 4, 2))
    variables = tokenizer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))
    return tokenized.replace(tokenizer=tokenizer, tokenizer_params=variables["params"])


def test_a_world_model_of_features_is_shown_features() -> None:
    world_model = shown_features()
    shown = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 4, 4, 2)), jnp.float16)
    actions = world_model.infer_actions(shown)
    trajectory = world_model.rollout(shown[:, :3], actions[:, 2:], decode=False)
    assert trajectory.features.shape == (2, 3, 4, 4, 2)
    # Exact in the first step, as nothing was fed back, and not rounded: what the model says of the true frames.
    features = world_model.encode(shown)
    output = world_model.dynamics.apply({"params": world_model.dynamics_params}, features, None, actions)
    np.testing.assert_allclose(trajectory.features[:, 0], output.next_features[:, 2], atol=2e-5)
    frames = world_model.rollout(shown[:, :3], actions[:, 2:])
    assert frames.shape == (2, 3, 16, 16, 3)
    with pytest.raises(ValueError, match=r"features: expected \[b t 4 4 2\] as in training, got \[2, 6, 16, 16, 3\]"):
        world_model.observe(jnp.zeros((2, 6, 16, 16, 3), jnp.uint8))


def test_predictions_of_features_without_a_grid_are_fed_back_as_they_are() -> None:
    world_model, config = shown_features(), tiny_config()
    assert config.dynamics.prediction_steps == 1
    features = world_model.encode(jnp.asarray(np.random.default_rng(2).normal(size=(1, 4, 4, 4, 2)), jnp.float32))
    variables = {"params": world_model.dynamics_params}
    options = dict(kl_weight=0.0, prediction_steps=2)
    _, metrics, first = dynamics_loss(
        world_model.dynamics, variables, features, jax.random.key(0), levels=(), **options
    )
    inputs = jnp.concatenate([features[:, :1], first.next_features], axis=1)
    again = world_model.dynamics.apply(variables, inputs, None, first.actions)
    squared = jnp.square(again.next_features - features[:, 1:])[:, 1:].sum(axis=(-3, -2, -1)).mean()
    np.testing.assert_allclose(metrics["prediction_loss_last"], squared, rtol=1e-4)
    _, rounded, _ = dynamics_loss(
        world_model.dynamics, variables, features, jax.random.key(0), levels=(3, 3), **options
    )
    assert abs(rounded["prediction_loss_last"] / squared - 1) > 1e-3
