"""The adversarial loss: who learns from which part, when it starts, and that it tells real frames from blurred ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flam_jax.tokenizer.discriminator import (
    PART,
    PatchDiscriminator,
    adversarial_loss,
    without_discriminator,
)
from flam_jax.training.stages import frozen_shapes
from flam_jax.training.step import spans
from tests.stages import filled, make_batch, make_stage, state_shapes
from tests.tiny import tiny_config

NAMES = {"adversarial", "discriminator", "r1", "adaptive_weight"}


def config_of(adversarial_weight: float) -> Any:
    config = tiny_config().copy_and_resolve_references()
    config.tokenizer.update(adversarial_weight=adversarial_weight, adversarial_start=0.5)
    return config


def losses(adversarial_weight: float, progress: float, params: Any) -> Any:
    """Loss, values and gradients of one batch."""
    config = config_of(adversarial_weight)
    stage = make_stage(config, "tokenizer")
    batch = make_batch(config, stage)
    loss = jax.value_and_grad(stage.loss, has_aux=True)
    return jax.jit(loss)(params, stage.frozen, batch, jax.random.key(0), jnp.float32(progress))


def parameters(adversarial_weight: float) -> Any:
    config = config_of(adversarial_weight)
    stage = make_stage(config, "tokenizer")
    return jax.tree.map(lambda p: 4 * p, filled(state_shapes(config, stage, make_batch(config, stage)).params))


def test_without_weight_or_before_the_start_the_loss_is_the_same() -> None:
    params = parameters(1.0)
    (plain, values), gradients = losses(0.0, 0.9, without_discriminator(params))
    assert not NAMES & set(values)
    (before, values), of_all = losses(1.0, 0.49, params)
    assert [float(values[name]) for name in NAMES] == [0.0] * 4
    assert float(before) == pytest.approx(float(plain), rel=1e-6)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(of_all[PART]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), without_discriminator(of_all), gradients
    )
    (after, values), _ = losses(1.0, 0.5, params)
    assert float(after) != pytest.approx(float(plain), rel=1e-3)
    assert float(values["adaptive_weight"]) > 0.0


def test_each_part_learns_from_its_own_loss() -> None:
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 2, 8, 8, 3)), jnp.float32)
    module = PatchDiscriminator(8, 4)
    params = module.init(jax.random.key(0), x[:, 0])["params"]

    @jax.jit
    def gradients(params: Any, made: jax.Array) -> Any:
        of = lambda part: jax.grad(  # noqa: E731
            lambda params, made: adversarial_loss(module, params, made, x, jnp.ones_like(x))[part], argnums=(0, 1)
        )(params, made)
        pull = jax.grad(lambda made: -module.apply({"params": params}, made.reshape(-1, 8, 8, 3)).mean())(made)  # type: ignore
        return of(0), of(1), pull

    (by_params, by_frames), (of_discriminator, through), pull = gradients(params, 0.5 * x)
    size = lambda tree: sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert size(by_params) == size(through) == 0.0
    assert size(of_discriminator) > 0.0
    # At the reconstruction it pulls as hard as the image loss, in the direction of higher scores.
    assert float(jnp.linalg.norm(by_frames.reshape(-1))) == pytest.approx(float(np.sqrt(x.size)), rel=1e-3)
    np.testing.assert_allclose(by_frames / jnp.abs(by_frames).max(), pull / jnp.abs(pull).max(), atol=1e-5)


def test_a_few_steps_tell_real_frames_from_blurred_ones() -> None:
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 1, 16, 16, 3)), jnp.float32)
    blurred = x.reshape(8, 1, 8, 2, 8, 2, 3).mean(axis=(3, 5)).repeat(2, axis=2).repeat(2, axis=3)
    module = PatchDiscriminator(16, 4)
    params = module.init(jax.random.key(0), x[:, 0])["params"]
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        loss = lambda params: adversarial_loss(module, params, blurred, x, x)[1]  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(30):
        params, state = step(params, state)
    real, fake = (module.apply({"params": params}, frames[:, 0]) for frames in (x, blurred))
    assert float(real.min()) > float(fake.max())  # type: ignore


def test_the_discriminator_trains_in_its_span_and_stays_in_its_stage() -> None:
    config = config_of(1.0)
    stage = make_stage(config, "tokenizer")
    params = state_shapes(config, stage, make_batch(config, stage)).params
    assert spans(params, stage) == {"encoder": (0.0, 1.0), "decoder": (0.0, 1.0), PART: (0.5, 1.0)}
    assert set(frozen_shapes("dynamics", config)["tokenizer"]) == {"encoder", "decoder"}
