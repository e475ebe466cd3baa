"""LPIPS equals that of its authors' package, on the same random weights."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.evaluation.networks import published
from flam_jax.evaluation.networks.lpips import SMALLEST, Lpips
from tests.evaluation.networks import random_weights

BACKBONES = ("alex", "vgg")


@functools.cache
def metric(backbone: str) -> Lpips:
    """With random weights that went through the converter's mapping."""
    network = f"lpips_{backbone}"
    parameters = published.from_backbone(network, random_weights.backbone_state(backbone))
    return Lpips(parameters | published.from_heads(network, random_weights.heads_state(backbone)), backbone)


def frame_pairs(backbone: str) -> list[tuple[jax.Array, jax.Array]]:
    return [(jnp.asarray(first), jnp.asarray(second)) for first, second in random_weights.frame_pairs(backbone)]


per_layer = jax.jit(Lpips.per_layer)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_layer_is_that_of_the_reference(backbone: str) -> None:
    reference = json.loads(random_weights.REFERENCE.read_text(encoding="utf-8"))[backbone]
    pairs = frame_pairs(backbone)
    for (first, second), expected in zip(pairs, reference, strict=True):
        found = per_layer(metric(backbone), first, second)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        total = jax.jit(Lpips.__call__)(metric(backbone), first, second)
        np.testing.assert_allclose(total, np.sum(expected, axis=-1), rtol=1e-4)


def test_a_changed_parameter_changes_the_value() -> None:
    """The comparison above can fail: every parameter counts."""
    (first, second), *_ = frame_pairs("alex")
    before = np.asarray(per_layer(metric("alex"), first, second))
    for name, value in metric("alex").parameters.items():
        # Not all of it alike: a head is linear, but normalization takes a common factor away.
        other = value.copy()
        other[..., : other.shape[-1] // 2] *= 1.5
        changed = Lpips(metric("alex").parameters | {name: other})
        assert np.abs(np.asarray(per_layer(changed, first, second)) / before - 1).max() > 1e-3, name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_equal_frames_are_at_no_distance_and_order_does_not_count(backbone: str) -> None:
    first, second = frame_pairs(backbone)[-1]
    assert float(metric(backbone)(first, first)[0]) == 0.0
    np.testing.assert_allclose(metric(backbone)(first, second), metric(backbone)(second, first), rtol=1e-5)


def test_leading_axes_are_kept() -> None:
    first, second = (frames.reshape(2, 1, 64, 64, 3) for frames in frame_pairs("alex")[0])
    found = metric("alex")(first, second)
    assert found.shape == (2, 1)
    np.testing.assert_allclose(found[1, 0], metric("alex")(first[1, 0], second[1, 0]), rtol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frames_that_are_too_small_are_refused(backbone: str) -> None:
    least = SMALLEST[backbone]
    frames = jnp.zeros((1, 64, least - 1, 3))
    with pytest.raises(ValueError, match=f"at least {least} pixels per side, these have 64x{least - 1}"):
        metric(backbone)(frames, frames)
