"""The encoder and decoder for real video: causal in time, frame by frame on a memory of constant size."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.tokenizer.loss import tokenizer_loss
from flam_jax.tokenizer.magvit import MagvitDecoder, MagvitEncoder
from flam_jax.tokenizer.tokenizer import Tokenizer

LEVELS = (2,) * 5


def build(temporal_kernel: int) -> Tokenizer:
    shared = dict(channels=16, patch_size=4, num_res_blocks=1)
    return Tokenizer(MagvitEncoder(5, temporal_kernel=temporal_kernel, **shared), MagvitDecoder(**shared), LEVELS)


def clip(*batch: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(size=(*batch, 8, 12, 3)), jnp.float32)


@functools.cache
def variables(temporal_kernel: int) -> Any:
    """Random numbers: the residual branches of new parameters are zero, and time would not pass through them."""
    shapes = jax.eval_shape(build(temporal_kernel).init, jax.random.key(0), clip(1, 1))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes)


@functools.cache
def compiled(temporal_kernel: int, method: str) -> Any:
    return jax.jit(functools.partial(build(temporal_kernel).apply, method=method))


def run(temporal_kernel: int, method: str, *arguments: Any) -> Any:
    return compiled(temporal_kernel, method)(variables(temporal_kernel), *arguments)


def continuous(temporal_kernel: int, frames: jax.Array) -> jax.Array:
    return run(temporal_kernel, "__call__", frames).continuous


@pytest.mark.parametrize("temporal_kernel", [1, 3])
def test_shapes_and_ranges_over_any_leading_axes(temporal_kernel: int) -> None:
    for batch in [(), (1, 2)]:
        features = run(temporal_kernel, "encode", clip(*batch))
        assert features.shape == (*batch, 2, 3, 5)
        codes = run(temporal_kernel, "codes", features)
        assert jnp.array_equal(run(temporal_kernel, "features", codes), features)
        decoded = run(temporal_kernel, "decode", features)
        assert decoded.shape == (*batch, 8, 12, 3)
        assert 0.0 <= float(decoded.min()) <= float(decoded.max()) <= 1.0


def test_features_of_a_frame_depend_on_no_later_frame() -> None:
    x = clip(1, 5)
    gradient = jax.jit(jax.grad(lambda x: (continuous(3, x)[:, 2] ** 2).sum()))(x)
    assert float(jnp.abs(gradient[:, 3:]).max()) == 0.0
    assert all(float(jnp.abs(gradient[:, t]).max()) > 0.0 for t in range(3))
    changed = x.at[:, 3:].set(0.5)
    np.testing.assert_allclose(continuous(3, changed)[:, :3], continuous(3, x)[:, :3], atol=1e-6)


def test_frames_are_independent_of_each_other_without_a_temporal_kernel() -> None:
    x = clip(1, 3)
    gradient = jax.jit(jax.grad(lambda x: (continuous(1, x)[:, 1] ** 2).sum()))(x)
    assert float(jnp.abs(gradient[:, jnp.asarray([0, 2])]).max()) == 0.0
    assert float(jnp.abs(gradient[:, 1]).max()) > 0.0
    np.testing.assert_allclose(continuous(1, x)[:, 1], continuous(1, x[:, 1]), atol=1e-5)


def test_a_still_clip_has_the_same_features_from_its_first_frame_on() -> None:
    features = continuous(3, jnp.repeat(clip(2, 1), 4, axis=1))
    np.testing.assert_allclose(features, jnp.repeat(features[:, :1], 4, axis=1), atol=1e-5)


@pytest.mark.parametrize("temporal_kernel", [1, 3])
def test_frame_by_frame_inference_equals_the_parallel_pass(temporal_kernel: int) -> None:
    x = clip(2, 5)
    step = functools.partial(run, temporal_kernel, "encode_frame")
    start = run(temporal_kernel, "init_cache", x[:, 0])
    expected = run(temporal_kernel, "encode", x)

    cache, found = start, []
    for t in range(x.shape[1]):
        cache, features = step(cache, x[:, t])
        assert jax.tree.map(jnp.shape, cache) == jax.tree.map(jnp.shape, start)
        found.append(features)
    np.testing.assert_allclose(jnp.stack(found, 1), expected, atol=1e-6)

    _, scanned = jax.jit(lambda cache, frames: jax.lax.scan(step, cache, frames))(start, jnp.moveaxis(x, 1, 0))
    np.testing.assert_allclose(jnp.moveaxis(scanned, 0, 1), expected, atol=1e-6)


def test_the_decoder_takes_single_frames() -> None:
    features = run(1, "encode", clip(1, 1, 2))
    np.testing.assert_allclose(run(1, "decode", features)[:, :, 1], run(1, "decode", features[:, :, 1]), atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    x = clip(1, 2)
    weights: Any = dict(change_weight=0.0, consistency_weight=0.0)
    loss = lambda v: tokenizer_loss(build(3).apply(v, x), x, **weights)[0]  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(variables(3))
    assert [path for path, g in jax.tree_util.tree_leaves_with_path(gradients) if not jnp.abs(g).max() > 0] == []


def test_no_device_rounds_the_products_of_the_encoder() -> None:
    jaxpr = jax.make_jaxpr(lambda x: build(3).apply(variables(3), x, method="encode"))(clip(1, 2))
    products = [e for e in jaxpr.eqns if e.primitive.name in ("dot_general", "conv_general_dilated")]
    assert len(products) >= 7
    assert all(str(name).endswith("HIGHEST") for e in products for name in e.params["precision"] or ("none",))
