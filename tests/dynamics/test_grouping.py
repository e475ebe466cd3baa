"""Affinities of patches, and the assignment under a separation penalty."""

import jax
import jax.numpy as jnp

from flam_jax.dynamics.grouping import (
    balanced_assignment,
    feature_affinity,
    inverse_frequency_weights,
    temporal_affinity,
    weighted_assignment,
)

PENALTY = jnp.full((), 6.0)


def test_affinity_counts_the_patches_that_look_alike():
    features = jnp.zeros((1, 1, 2, 3, 2)).at[0, 0, 0, 1].set(1.0)  # one patch unlike the five others
    affinity = feature_affinity(features, features)
    assert jnp.allclose(affinity.sum(axis=-1), jnp.asarray([[[5, 1, 5, 5, 5, 5]]]), atol=1e-3)
    assert jnp.allclose(affinity, affinity.swapaxes(-1, -2))
    weights = inverse_frequency_weights(affinity, 1.0)[0, 0, 0]
    assert jnp.allclose(weights, jnp.asarray([0.2, 1, 0.2, 0.2, 0.2, 0.2]), atol=1e-3)  # both contents weigh 1
    assert jnp.allclose(inverse_frequency_weights(affinity, 0.0), 1.0)


def test_a_patch_continues_what_looks_like_it_or_lies_beside_it():
    """In a row of five the entity in the first turns and looks different, that in the fourth goes to the fifth."""
    background, entity, turned, other = jnp.eye(4)
    before = jnp.stack([entity, background, background, other, background])
    after = jnp.stack([turned, background, background, background, other])
    affinity = temporal_affinity(*(x[None, None, None] for x in (before, after)))[0, 0]
    assert jnp.allclose(affinity[:, 0], jnp.asarray([1, 1, 0, 0, 0]), atol=1e-3)  # by position alone
    assert jnp.allclose(affinity[:, 4], jnp.asarray([0, 0, 0, 1, 1]), atol=1e-3)
    assert jnp.allclose(affinity[:, 2], jnp.asarray([0, 1, 1, 1, 1]), atol=1e-3)


def assigned(logits, contents, penalty):
    """Who holds patches that show `contents`, one number a patch, each content weighing 1; in one frame."""
    numbers, logits = jnp.asarray(contents), jnp.asarray(logits)[None, None]
    if penalty is None:
        return jax.nn.softmax(logits, axis=2)[0, 0]
    affinity = (numbers[:, None] == numbers[None]).astype(jnp.float32)[None, None]
    weights = 1 / affinity.sum(axis=-1)[:, :, None]
    continuation = jnp.ones_like(affinity)
    attention = balanced_assignment(logits, penalty, weights=weights, affinity=affinity, continuation=continuation)
    assert jnp.allclose(attention.sum(axis=2), 1.0, atol=1e-6)
    return attention[0, 0]


def test_a_slot_that_would_hold_two_contents_holds_less_of_both():
    """The first of two slots prefers each of two contents a little, and would take both."""
    logits, contents = [[4.0, 4.0, 4.0], [2.0, 2.0, 2.0]], [0, 1, 1]
    free = assigned(logits, contents, None)
    assert (free[0] > 0.85).all()
    assert (assigned(logits, contents, jnp.full((), 4.0))[0] < 0.75).all()
    assert jnp.array_equal(assigned(logits, contents, jnp.zeros(())), free)


def test_a_slot_that_holds_one_content_is_not_penalized():
    """A background of many patches is one content; the third slot is empty."""
    logits = [[0.0, 20.0, 20.0, 20.0, 20.0], [20.0, 0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0, 3.0]]
    free, separated = (assigned(logits, [0, 1, 1, 1, 1], penalty) for penalty in (None, jnp.full((), 4.0)))
    assert jnp.allclose(separated, free, atol=1e-6)


def test_slots_part_what_they_share_nearly_evenly():
    """Five slots share three contents; what they prefer is too little for any to hold most of what it prefers."""
    preference = 0.6 * jnp.asarray([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    free, separated = (assigned(preference, [0, 1, 2], penalty) for penalty in (None, PENALTY))
    preferred = jnp.arange(3)

    def purity(attention):
        return attention[preferred, preferred] / attention[:3].sum(axis=1)

    assert (purity(free) < 0.5).all()
    assert (purity(separated) > 0.6).all()
    assert (separated[preferred, preferred] > 1.3 * free[preferred, preferred]).all()


def test_an_entity_that_turns_stays_in_its_slot():
    """Two slots know two entities by their looks, but when the first one turns, each prefers the other."""
    entity, turned, other = jnp.eye(3)
    background = jnp.zeros(3)
    frames = jnp.stack([jnp.stack([first, background, background, other]) for first in (entity, turned)])
    features = frames[None, :, None]
    affinity = feature_affinity(features, features)
    continuation = temporal_affinity(features[:, [0, 0]], features)
    weights = inverse_frequency_weights(affinity, 1.0)
    preferences = jnp.asarray([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 1.0, 1.0, 0]])
    logits = jnp.stack([preferences, preferences[:, ::-1]])[None]

    def assign(frames, continuation, previous=None):
        parts = dict(weights=weights[:, frames], affinity=affinity[:, frames], continuation=continuation[:, frames])
        return balanced_assignment(logits[:, frames], PENALTY, **parts, previous_assignment=previous)

    own, swapped = (jnp.asarray([0, 1]), jnp.asarray([0, 3])), (jnp.asarray([1, 0]), jnp.asarray([0, 3]))
    both = slice(0, 2)
    without, separated = assign(both, jnp.ones_like(affinity))[0], assign(both, continuation)[0]
    assert (without[1][swapped] > 0.9).all()
    assert (separated[0][own] > 0.9).all()
    assert (separated[1][own] > 0.6).all()
    first = assign(slice(0, 1), continuation)
    second = assign(slice(1, 2), continuation, weighted_assignment(first, weights[:, :1]))
    assert (second[0, 0][own] > 0.6).all()  # frame by frame, too
