"""I3D equals the network in PyTorch, resizing included, on the same random weights."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.evaluation.networks import i3d, published
from tests.evaluation.networks import random_weights


@functools.cache
def parameters() -> dict[str, Any]:
    """Random weights that went through the converter's mapping."""
    return jax.tree.map(jnp.asarray, published.from_backbone("i3d", random_weights.i3d_state()))


logits = jax.jit(i3d.logits)


@pytest.mark.parametrize("number", range(len(random_weights.VIDEOS)))
def test_the_features_are_those_of_the_reference(number: int) -> None:
    """Odd and even numbers of frames, one window of the last average and several, enlarged and shrunk."""
    expected = np.asarray(json.loads(random_weights.REFERENCE.read_text(encoding="utf-8"))["i3d"][number])
    found = np.asarray(logits(parameters(), random_weights.videos()[number])[0])
    assert found.shape == (i3d.CLASSES,)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.std())


def test_a_changed_parameter_changes_the_features() -> None:
    """The comparison above can fail: a bias of one branch in the middle is enough."""
    video = random_weights.videos()[0]
    before = np.asarray(logits(parameters(), video))
    name = "Mixed_4d.b2a.bias"
    after = np.asarray(logits(parameters() | {name: parameters()[name] + 0.1}, video))
    assert np.abs(after - before).max() > 1e-2 * before.std()


def test_short_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 9 frames, these have 8"):
        i3d.logits(parameters(), jnp.zeros((1, 8, 64, 64, 3)))
    shortest = jax.eval_shape(i3d.logits, parameters(), jnp.zeros((1, i3d.LEAST_FRAMES, 64, 64, 3)))
    assert shortest.shape == (1, i3d.CLASSES)
