"""What slots compete for and how, and what they read."""

import jax
import jax.numpy as jnp
import pytest

from flam_jax.dynamics.factorizer import (
    Competition,
    Factorizer,
    Patches,
    alikeness,
    continuity,
    coordinates,
    position_codes,
    share_out,
)
from tests.dynamics.models import SIZES, apply, make_model, max_difference


@pytest.mark.parametrize("local_context", [False, True])
def test_with_local_context_slots_see_what_changed_since_the_last_frame_and_no_earlier_one(local_context):
    """Without temporal attention: its window is of one frame."""
    model, variables, features = make_model(SIZES[1], history=1, local_context=local_context)
    changed = features.at[:, 0].set(-features[:, 0])
    a, b = (apply(model, variables, x, method="factorize").slots for x in (features, changed))
    assert (max_difference(a[:, 1], b[:, 1]) > 1e-4) == local_context
    assert max_difference(a[:, 2:], b[:, 2:]) == 0.0


def test_only_the_history_window_is_seen_by_one_temporal_attention():
    model, variables, features = make_model(SIZES[1], num_iterations=1, history=2)
    changed = features.at[:, 0].set(-features[:, 0])
    a, b = (apply(model, variables, x, method="factorize").slots for x in (features, changed))
    assert max_difference(a[:, 1], b[:, 1]) > 1e-4
    assert max_difference(a[:, 2:], b[:, 2:]) == 0.0


def competition(features, k, d, **changes):
    """Full sharpness without annealing, but for `changes`."""
    b = features.shape[0]
    fields = dict(sharpness=jnp.full(b, 4.0), query_noise=jnp.zeros((b, k, d)), balance=jnp.zeros(()))
    return Competition(**(fields | changes))


def test_competition_without_annealing_changes_nothing(sized):
    model, variables, features = sized
    k, d = model.num_factors, model.model_dim
    out = apply(model, variables, features)
    assert max_difference(apply(model, variables, features, competition(features, k, d)), out) < 1e-4
    b = features.shape[0]
    noise = jax.random.normal(jax.random.key(0), (b, k, d))
    for change in ({"sharpness": jnp.full(b, 1.0)}, {"query_noise": noise}, {"balance": jnp.ones(())}):
        annealed = apply(model, variables, features, competition(features, k, d, **change))
        assert max_difference(annealed.slots, out.slots) > 1e-3, change


def test_in_balance_nothing_depends_on_later_frames(sized):
    model, variables, features = sized
    t = features.shape[1] - 1
    changed = features.at[:, t].set(-features[:, t])
    annealed = competition(features, model.num_factors, model.model_dim, balance=jnp.full((), 6.0))
    a, b = (apply(model, variables, x, annealed) for x in (features, changed))
    assert max_difference((a.slots[:, :t], a.attention[:, :t]), (b.slots[:, :t], b.attention[:, :t])) == 0.0


@pytest.mark.parametrize(("h", "w"), [(8, 8), (1, 3), (14, 2)])
def test_position_codes_name_every_place_and_hold_a_step_that_is_the_same_everywhere(h, w):
    codes = position_codes(h, w)
    assert len({tuple(code) for code in codes.reshape(h * w, -1).tolist()}) == h * w
    for part in (codes[..., :h], codes[..., h : h + w]):
        assert jnp.allclose(jnp.square(part).mean(axis=-1), 1.0)
    numbers = coordinates(h, w)
    assert jnp.array_equal(codes[..., h + w :], numbers)
    for axis, size in enumerate((h, w)):
        steps = jnp.diff(numbers, axis=axis)
        assert jnp.allclose(steps, steps.reshape(-1, 2)[:1], atol=1e-6) if steps.size else size == 1
        assert jnp.allclose(jnp.square(numbers[..., axis]).mean(), float(size > 1), atol=1e-5)
        assert jnp.allclose(numbers[..., axis].mean(), 0.0, atol=1e-6)


@pytest.mark.parametrize("layer", ["key", "query"])
def test_the_length_of_queries_and_keys_does_not_make_the_competition_sharper(sized, layer):
    model, variables, features = sized
    params = jax.tree.map(lambda x: x, variables["params"])
    kernel = params["factorizer"][layer]["kernel"]
    attention = apply(model, variables, features).attention
    params["factorizer"][layer]["kernel"] = 5.0 * kernel
    assert max_difference(apply(model, {"params": params}, features).attention, attention) < 1e-4
    params["factorizer"][layer]["kernel"] = kernel[::-1]  # directions do count
    assert max_difference(apply(model, {"params": params}, features).attention, attention) > 1e-3


@pytest.mark.parametrize("position_in_keys", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_who_holds_a_content_does_not_depend_on_where_it_lies(size, position_in_keys):
    """Unless places are competed for: every frame's patches are shuffled in their own way, and the attention likewise.
    Where contents lie is still in the slots."""
    model, variables, features = make_model(size, position_in_keys=position_in_keys)
    b, t, h, w, c = features.shape
    orders = jnp.argsort(jax.random.uniform(jax.random.key(3), (b, t, h * w)), axis=-1)
    shuffled = jnp.take_along_axis(features.reshape(b, t, h * w, c), orders[..., None], axis=2).reshape(features.shape)
    before, after = (apply(model, variables, x, method="factorize") for x in (features, shuffled))
    attention = before.attention.reshape(b, t, -1, h * w)
    expected = jnp.take_along_axis(attention, orders[:, :, None], axis=3).reshape(before.attention.shape)
    difference = max_difference(after.attention, expected)
    assert difference > 1e-3 if position_in_keys else difference < 1e-4
    assert max_difference(after.slots, before.slots) > 1e-3


def test_look_alikes_are_counted():
    features = jnp.zeros((1, 1, 2, 3, 2)).at[0, 0, 0, 1].set(1.0)  # one patch unlike the five others
    alike = alikeness(features, features)
    assert jnp.allclose(alike.sum(axis=-1), jnp.asarray([[[5, 1, 5, 5, 5, 5]]]), atol=1e-3)
    assert jnp.allclose(alike, alike.swapaxes(-1, -2))


def balanced_share(logits, contents, balance):
    """Who holds patches that show `contents`, one name a patch, each content counting 1."""
    names = jnp.asarray(contents)
    alike = (names[:, None] == names[None]).astype(jnp.float32)
    goes_on = jnp.ones((1, 1, *alike.shape))
    patches = Patches(None, None, (1 / alike.sum(axis=-1))[None, None, None], alike[None, None], goes_on)
    attention = share_out(jnp.asarray(logits)[None, None], patches, balance)[0, 0]
    assert jnp.allclose(attention.sum(axis=0), 1.0, atol=1e-6)
    return attention


def test_in_balance_a_slot_that_holds_two_contents_bids_less():
    """The first of two slots bids a little more for each of two contents, and would take both."""
    logits, contents = [[4.0, 4.0, 4.0], [2.0, 2.0, 2.0]], [0, 1, 1]
    free = balanced_share(logits, contents, None)
    assert (free[0] > 0.85).all()
    assert (balanced_share(logits, contents, jnp.full((), 4.0))[0] < 0.75).all()
    assert jnp.array_equal(balanced_share(logits, contents, jnp.zeros(())), free)


def test_in_balance_a_slot_that_holds_one_content_bids_for_it_as_before():
    """A background of many patches is one content; the third slot is empty."""
    logits = [[0.0, 20.0, 20.0, 20.0, 20.0], [20.0, 0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0, 3.0]]
    free, balanced = (balanced_share(logits, [0, 1, 1, 1, 1], balance) for balance in (None, jnp.full((), 4.0)))
    assert jnp.allclose(balanced, free, atol=1e-6)


def test_in_balance_slots_part_what_they_share_nearly_evenly():
    """Five slots share three contents; what they prefer is too little for any to hold most of what it likes best."""
    preference = 0.6 * jnp.asarray([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    free, balanced = (balanced_share(preference, [0, 1, 2], balance) for balance in (None, jnp.full((), 6.0)))
    liked = jnp.arange(3)

    def purity(share):
        return share[liked, liked] / share[:3].sum(axis=1)

    assert (purity(free) < 0.5).all()
    assert (purity(balanced) > 0.6).all()
    assert (balanced[liked, liked] > 1.3 * free[liked, liked]).all()


def test_a_patch_goes_on_with_what_looks_like_it_or_lies_beside_it():
    """In a row of five the entity in the first turns and looks otherwise, that in the fourth goes to the fifth."""
    background, entity, turned, other = jnp.eye(4)
    before = jnp.stack([entity, background, background, other, background])
    after = jnp.stack([turned, background, background, background, other])
    goes_on = continuity(*(x[None, None, None] for x in (before, after)))[0, 0]
    assert jnp.allclose(goes_on[:, 0], jnp.asarray([1, 1, 0, 0, 0]), atol=1e-3)  # by place alone
    assert jnp.allclose(goes_on[:, 4], jnp.asarray([0, 0, 0, 1, 1]), atol=1e-3)
    assert jnp.allclose(goes_on[:, 2], jnp.asarray([0, 1, 1, 1, 1]), atol=1e-3)


def test_in_balance_an_entity_that_turns_stays_in_its_slot():
    """Two slots know two entities by their looks, but when the first one turns, each bids more for the other."""
    entity, turned, other = jnp.eye(3)
    background = jnp.zeros(3)
    frames = jnp.stack([jnp.stack([first, background, background, other]) for first in (entity, turned)])
    features = frames[None, :, None]
    alike, goes_on = alikeness(features, features), continuity(features[:, [0, 0]], features)
    weight = 1 / alike.sum(axis=-1)[:, :, None]
    bids = jnp.asarray([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 1.0, 1.0, 0]])
    logits = jnp.stack([bids, bids[:, ::-1]])[None]

    def share(goes_on):
        return share_out(logits, Patches(None, None, weight, alike, goes_on), jnp.full((), 6.0))[0]

    own, swapped = (jnp.asarray([0, 1]), jnp.asarray([0, 3])), (jnp.asarray([1, 0]), jnp.asarray([0, 3]))
    forgetful, balanced = share(jnp.ones_like(alike)), share(goes_on)
    assert (forgetful[1][swapped] > 0.9).all()
    assert (balanced[0][own] > 0.9).all()
    assert (balanced[1][own] > 0.6).all()
    patches = Patches(None, None, weight, alike, goes_on)
    frames = [jax.tree.map(lambda x, frame=frame: x[:, frame : frame + 1], patches) for frame in range(2)]
    first = share_out(logits[:, :1], frames[0], jnp.full((), 6.0))
    second = share_out(logits[:, 1:], frames[1], jnp.full((), 6.0), frames[0].counted(first))
    assert (second[0, 0][own] > 0.6).all()  # frame by frame, too


def test_a_rare_content_is_not_drowned_by_a_background_in_the_same_slot():
    """One factor holds everything: what it gives away of one patch among 64."""
    background = jnp.zeros((1, 1, 8, 8, 3))
    entity = background.at[0, 0, 2, 5].set(1.0)

    def change(rarity):
        model = Factorizer(1, 16, 2, 2, 3, attention_sharpness=4.0, rarity=rarity)
        variables = jax.jit(model.init)(jax.random.key(0), background)
        alone, both = (apply(model, variables, features)[0].slots for features in (background, entity))
        return float(jnp.linalg.norm(both - alone) / jnp.linalg.norm(alone))

    assert change(0.0) < 0.1 < 0.3 < change(1.0)
