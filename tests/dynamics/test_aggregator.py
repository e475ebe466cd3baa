"""What slots put into the patches of the next frame."""

import jax
import jax.numpy as jnp
import numpy as np

from flam_jax.dynamics.aggregator import Aggregator, SlotCrossAttention
from flam_jax.dynamics.factorizer import (
    coordinates,
)
from tests.dynamics.models import apply, make_model, max_difference


def test_with_local_context_a_patch_is_told_what_comes_of_the_slot_that_holds_it():
    """Another holder, another prediction, with all else the same."""
    model, variables, features = make_model((1, 3, 2, 3, 2, 2, 1), local_context=True)
    factors = apply(model, variables, features, method="factorize")
    held = lambda slots: jnp.zeros_like(factors.attention).at[:, :, slots].set(1.0)  # noqa: E731
    first, second = (apply(model, variables, features, factors.slots, held(k), method="aggregate") for k in (0, 1))
    assert max_difference(first, second) > 1e-3
    # Without being told, the factorizer knows.
    known = apply(model, variables, features, factors.slots, factors.attention, method="aggregate")
    assert max_difference(known, apply(model, variables, features, factors.slots, method="aggregate")) < 1e-5


def test_with_local_context_patches_see_the_last_frame_and_their_neighbours_and_not_beyond():
    model, variables, features = make_model((1, 4, 7, 7, 2, 2, 1), local_context=True)
    factors = apply(model, variables, features, method="factorize")
    # Apart from what the slots see, which is given here.
    given = (factors.slots, factors.attention)
    before = apply(model, variables, features, *given, method="aggregate")
    after = apply(model, variables, features.at[:, 1, 0, 0].add(1.0), *given, method="aggregate")
    changed = jnp.abs(after - before).max(axis=(0, 4)) > 1e-6  # t h w
    assert not changed[0].any()  # the past
    assert not changed[3].any()  # only the last frame is remembered
    # Two steps of a 3x3 neighbourhood with one block: the question and the perceptron.
    for frame in (1, 2):
        assert changed[frame, :3, :3].all()
        assert not changed[frame, 3:].any()
        assert not changed[frame, :, 3:].any()


def test_a_slot_calls_the_patch_one_on_by_the_same_change_everywhere():
    h = w = 8
    module = SlotCrossAttention(num_heads=1)
    patches, slot = jnp.zeros((h, w, 4)), jnp.zeros((1, 4))
    params = jax.jit(module.init)(jax.random.key(0), patches, slot)["params"]
    # Rows and columns are read from the first two numbers of a slot, what it has to say from the others.
    params["call"] = {"kernel": jnp.eye(4, 2)[:, None], "bias": jnp.zeros((1, 2))}
    params["value"]["kernel"] = params["value"]["kernel"].at[:2].set(0.0)
    params["log_reach"] = jnp.log(jnp.full(1, 0.1))

    def called(row, column):
        """Patches that read the slot."""
        slot = jnp.concatenate([coordinates(h, w)[row, column], jnp.ones(2)])[None]
        read = apply(module, {"params": params}, patches, slot)
        far = apply(module, {"params": params}, patches, slot.at[0, :2].set(50.0))
        return set(zip(*np.nonzero(np.abs(read - far).max(axis=-1) > 1e-3), strict=True))

    for row, column in ((0, 0), (2, 5), (3, 5), (7, 1)):
        assert called(row, column) == {(row, column)}


def test_what_slots_put_into_a_patch_does_not_depend_on_what_it_shows():
    """But for one number, whether something comes, which is held here."""
    module = Aggregator(model_dim=8, num_blocks=2, num_heads=2)
    shown, other_shown = jax.random.normal(jax.random.key(1), (2, 1, 4, 5, 3))
    slots, other_slots = jax.random.normal(jax.random.key(2), (2, 1, 3, 8))
    params = jax.jit(module.init)(jax.random.key(0), shown, shown, slots, None)["params"]
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(3), x.shape), params)

    def put(shown):
        first, second = (apply(module, {"params": params}, shown, shown, x, None) for x in (slots, other_slots))
        return first - second

    assert float(jnp.abs(put(shown)).max()) > 0.1
    assert max_difference(put(shown), put(other_shown)) > 1e-3
    params["something_comes"] = {"kernel": jnp.zeros((8, 1)), "bias": jnp.ones(1)}
    assert max_difference(put(shown), put(other_shown)) < 1e-5
