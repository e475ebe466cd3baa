"""Encoders, decoders and the loss that makes small moving things count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.tokenizer import fsq
from flam_jax.tokenizer.decoders import CnnDecoder, PatchDecoder
from flam_jax.tokenizer.encoders import ImpalaEncoder, PatchEncoder
from flam_jax.tokenizer.loss import changing_pixels, still_patches, tokenizer_loss, tokenizer_metrics
from flam_jax.tokenizer.patches import copies, draw_patches, from_patches, to_patches
from flam_jax.tokenizer.tokenizer import Tokenizer, TokenizerOutput

LEVELS = (4, 3)
WEIGHTS = dict(change_weight=0.0, consistency_weight=0.0)


def build(encoder: str, decoder: str, dtype=jnp.float32) -> Tokenizer:
    shared = dict(channels=16, patch_size=4, dtype=dtype)
    encoders = {
        "impala": ImpalaEncoder(2, num_res_blocks=1, **shared),
        "patch": PatchEncoder(2, num_layers=1, **shared),
    }
    decoders = {"cnn": CnnDecoder(num_res_blocks=1, **shared), "patch": PatchDecoder(num_layers=1, **shared)}
    return Tokenizer(encoders[encoder], decoders[decoder], LEVELS)


def frames(*batch: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(size=(*batch, 8, 12, 3)), jnp.float32)


@pytest.mark.parametrize(("encoder", "decoder"), [("impala", "cnn"), ("patch", "patch"), ("patch", "cnn")])
def test_shapes_and_ranges_over_any_leading_axes(encoder, decoder):
    model = build(encoder, decoder)
    variables = jax.jit(model.init)(jax.random.key(0), frames(1))
    for batch in [(), (3,), (2, 3)]:
        features = model.apply(variables, frames(*batch), method="encode")
        assert features.shape == (*batch, 2, 3, 2)
        codes = model.apply(variables, features, method="codes")
        assert (codes.shape, codes.dtype) == ((*batch, 2, 3, 2), jnp.uint8)
        assert jnp.array_equal(model.apply(variables, codes, method="features"), features)
        decoded = model.apply(variables, features, method="decode")
        assert decoded.shape == (*batch, 8, 12, 3)
        assert float(decoded.min()) >= 0.0
        assert float(decoded.max()) <= 1.0


def test_the_patch_encoder_sees_its_own_patch_only():
    model = build("patch", "patch")
    x = frames(1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    gradient = jax.grad(lambda x: model.apply(variables, x).continuous[0, 0, 0].sum())(x)
    assert float(jnp.abs(gradient[:, :4, :4]).max()) > 0.0
    assert float(jnp.abs(gradient[:, 4:]).max()) == float(jnp.abs(gradient[:, :, 4:]).max()) == 0.0


@pytest.mark.parametrize("encoder", ["impala", "patch"])
def test_no_device_rounds_the_products_of_an_encoder(encoder):
    """Else codes near an edge between two levels differ between devices."""
    model = build(encoder, "cnn")
    variables = jax.jit(model.init)(jax.random.key(0), frames(1))
    jaxpr = jax.make_jaxpr(lambda x: model.apply(variables, x, method="encode"))(frames(1))
    precisions = [
        equation.params["precision"]
        for equation in jaxpr.eqns
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    assert len(precisions) >= 2
    assert all(str(name).endswith("HIGHEST") for pair in precisions for name in pair or ("none",))


def test_gradients_reach_every_parameter():
    for pair in [("impala", "cnn"), ("patch", "patch")]:
        model = build(*pair)
        x = frames(1, 2)
        variables = jax.jit(model.init)(jax.random.key(0), x)
        # Residual branches end in a zero convolution at first, which no gradient passes.
        rng = np.random.default_rng(0)
        variables = jax.tree.map(lambda p, rng=rng: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), variables)
        loss = lambda v, model=model, x=x: tokenizer_loss(model.apply(v, x), x, **WEIGHTS)[0]  # noqa: E731
        gradients = jax.jit(jax.grad(loss))(variables)
        dead = [path for path, g in jax.tree_util.tree_leaves_with_path(gradients) if float(jnp.abs(g).max()) == 0]
        assert dead == [], pair


def test_bfloat16_computes_close_to_float32_and_keeps_float32_features():
    exact, rough = build("impala", "cnn"), build("impala", "cnn", jnp.bfloat16)
    x = frames(2)
    variables = jax.jit(exact.init)(jax.random.key(0), x)
    a, b = exact.apply(variables, x), rough.apply(variables, x)
    assert b.continuous.dtype == b.features.dtype == b.reconstruction.dtype == jnp.float32
    assert float(jnp.abs(a.continuous - b.continuous).max()) < 0.05


def test_patches_are_cut_and_put_together_exactly():
    x = frames(2)
    patches = to_patches(x, 4)
    assert patches.shape == (2, 2, 3, 48)
    assert jnp.array_equal(patches[1, 1, 2].reshape(4, 4, 3), x[1, 4:, 8:])
    assert jnp.array_equal(from_patches(patches, 4), x)


def test_copies_are_counted():
    patches = jnp.asarray([[[1, 2], [2, 1], [1, 2], [1, 2], [255, 255]], [[0, 0]] * 5], jnp.uint8)
    assert copies(patches).tolist() == [[3, 1, 3, 3, 1], [5] * 5]


def test_drawn_patches_are_patches_of_their_window_and_none_is_drawn_twice():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 3, 8, 12, 3), np.uint8))
    strips = draw_patches(jax.random.key(1), x, 4, 18, 0.5)  # all of them
    assert strips.shape == (2, 1, 4, 18 * 4, 3)
    for strip, window in zip(to_patches(strips, 4), to_patches(x, 4), strict=True):
        assert sorted(strip.reshape(18, -1).tolist()) == sorted(window.reshape(18, -1).tolist())


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_contents_are_drawn_by_how_rare_they_are(power):
    """One white patch and 15 black ones in each of many windows: how often the one patch that is drawn is white."""
    x = jnp.zeros((4000, 1, 8, 8, 3), jnp.uint8).at[:, :, :2, 2:4].set(255)
    white = (draw_patches(jax.random.key(0), x, 2, 1, power) == 255).all(axis=(1, 2, 3, 4)).mean()
    assert float(white) == pytest.approx(1 / (1 + 15 ** (1 - power)), abs=0.03)


def moving_dot(steps: int) -> jax.Array:
    """A white pixel that walks along the upper left patch of a black frame."""
    x = np.zeros((1, steps, 8, 8, 3), np.float32)
    x[0, np.arange(steps), 0, np.arange(steps)] = 1.0
    return jnp.asarray(x)


def output(reconstruction: jax.Array, continuous: jax.Array) -> TokenizerOutput:
    return TokenizerOutput(continuous, jnp.round(continuous * 1.5) / 1.5, reconstruction)


def test_changing_pixels_and_still_patches():
    x = moving_dot(3)
    assert changing_pixels(x)[0, 0, :, :, 0].sum() == 3
    still = still_patches(x, 2)
    assert still.shape == (1, 2, 2, 2)
    assert still.sum() == 2 * 3
    assert still[0, :, 0, 0].sum() == 0


def test_the_change_weight_makes_changing_pixels_count():
    x = moving_dot(3)
    blank = output(jnp.zeros_like(x), jnp.zeros((1, 3, 2, 2, 2)))
    plain, _ = tokenizer_loss(blank, x, **WEIGHTS)
    weighted, _ = tokenizer_loss(blank, x, **(WEIGHTS | {"change_weight": 10.0}))
    # 3 of 64 pixels move and one of them is wrong in every frame: weight 11 against a mean weight of (64 + 30) / 64.
    assert float(weighted / plain) == pytest.approx(11 / (94 / 64), rel=1e-4)


def test_consistency_counts_feature_changes_of_still_patches_only():
    x = moving_dot(2)
    weights = WEIGHTS | {"consistency_weight": 1.0}
    moving = jnp.zeros((1, 2, 2, 2, 2)).at[0, 1, 0, 0].set(0.5)
    still = jnp.zeros((1, 2, 2, 2, 2)).at[0, 1, 1, 1].set(0.5)
    assert tokenizer_loss(output(x, moving), x, **weights)[1]["consistency"] == 0.0
    assert tokenizer_loss(output(x, still), x, **weights)[1]["consistency"] > 0.0


def test_metrics_on_known_cases():
    x = moving_dot(2)
    codes_change = jnp.full((1, 2, 2, 2, 2), -1.0).at[0, 1, 1, 1].set(1.0)
    metrics = tokenizer_metrics(output(x + 0.1, codes_change), x, (4, 4))
    # One of the three still patches changes its code. The error is 0.1 where clipping allows it.
    assert float(metrics["code_jitter"]) == pytest.approx(1 / 3)
    assert float(metrics["codes_used"]) == 2
    counts = np.asarray([7, 1]) / 8
    assert float(metrics["code_perplexity"]) == pytest.approx(np.exp(-(counts * np.log(counts)).sum()), rel=1e-5)
    assert float(metrics["psnr"]) == pytest.approx(-10 * np.log10(0.01 * 63 / 64), rel=1e-4)
    assert float(metrics["psnr_moving"]) == pytest.approx(-10 * np.log10(0.01 / 2), rel=1e-4)


def test_codes_are_told_apart_where_an_integer_could_not_number_them():
    levels = (4,) * 40
    features = jnp.zeros((1, 2, 1, 5, 40)).at[0, 1, 0, 0, 39].set(1.0).at[0, 1, 0, 1, 0].set(1.0)
    features = fsq.quantize(features, levels)
    still = jnp.zeros((1, 2, 4, 20, 3))
    metrics = tokenizer_metrics(TokenizerOutput(features, features, still), still, levels)
    assert float(metrics["codes_used"]) == pytest.approx(3)
    assert float(metrics["code_jitter"]) == pytest.approx(2 / 5)
