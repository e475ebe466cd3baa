"""Exact properties of the model, each over several b, t, k and numbers of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.dynamics.aggregator import Aggregator, SlotCrossAttention
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
from flam_jax.dynamics.flam import FlamOutput
from flam_jax.dynamics.forward import ForwardDynamics
from flam_jax.dynamics.inverse import ActionDistribution, InverseDynamics
from flam_jax.dynamics.streams import ContextStream
from tests.dynamics.models import SIZES, apply, make_model, max_difference


def test_shapes_are_those_of_the_design(sized):
    model, variables, features = sized
    b, t, h, w, c = features.shape
    k, d, a = model.num_factors, model.model_dim, model.action_dim
    out = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert isinstance(out, FlamOutput)
    assert out.slots.shape == (b, t, k, d)
    assert out.attention.shape == (b, t, k, h, w)
    assert out.action_mean.shape == out.action_log_var.shape == out.actions.shape == (b, t - 1, k, a)
    assert out.action_kl.shape == (b, t - 1, k)
    assert out.next_slots.shape == (b, t - 1, k, d)
    assert out.next_features.shape == (b, t - 1, h, w, c)


def test_attention_sums_to_one_over_factors(sized):
    model, variables, features = sized
    attention = apply(model, variables, features, method="factorize").attention
    assert jnp.allclose(attention.sum(axis=2), 1.0, atol=1e-5)


def coupling(function, inputs, factor_axis):
    """Size of the gradient of every output factor with respect to every input factor, k x k: exact zeros stay zero.

    `function` maps to outputs whose axis 2 is the factor's; they are projected on random directions factor by factor.
    """

    @jax.jit
    def gradients(inputs):
        outputs, pull_back = jax.vjp(function, inputs)
        k = outputs.shape[2]
        directions = jax.random.normal(jax.random.key(5), outputs.shape) * jnp.eye(k)[:, None, None, :, None]
        return jax.vmap(lambda direction: pull_back(direction)[0])(directions)

    size = jnp.abs(gradients(inputs))
    return jnp.moveaxis(size, 1 + factor_axis, 1).sum(axis=tuple(range(2, size.ndim)))


def assert_diagonal(matrix):
    k = matrix.shape[0]
    assert float(jnp.diagonal(matrix).min()) > 1e-4
    assert float(jnp.max(matrix * (1 - jnp.eye(k)))) == 0.0


def test_next_slot_depends_on_no_other_factors_action(sized):
    model, variables, features = sized
    slots = apply(model, variables, features, method="factorize").slots
    actions = jax.random.normal(jax.random.key(4), (*slots.shape[:3], model.action_dim))
    assert_diagonal(coupling(lambda a: apply(model, variables, slots, a, method="predict_slots"), actions, 2))


def test_action_depends_on_no_other_factors_next_slot(sized):
    model, variables, features = sized
    slots = apply(model, variables, features, method="factorize").slots

    def last_action(last):
        posterior = apply(model, variables, slots.at[:, -1].set(last), method="infer_actions")
        return jnp.concatenate([posterior.mean, posterior.log_var], axis=-1)[:, -1:]

    assert_diagonal(coupling(last_action, slots[:, -1], 1))


def test_the_coupling_check_finds_coupling(sized):
    """The same check on the state, through which factors do see each other, is not diagonal."""
    model, variables, features = sized
    slots = apply(model, variables, features, method="factorize").slots
    actions = jnp.zeros((*slots.shape[:3], model.action_dim))
    matrix = coupling(lambda s: apply(model, variables, s, actions, method="predict_slots"), slots, 2)
    assert float(matrix.min()) > 1e-4


def test_nothing_depends_on_later_frames(sized):
    model, variables, features = sized
    t = features.shape[1] - 1
    changed = features.at[:, t].set(-features[:, t])
    a, b = (apply(model, variables, x) for x in (features, changed))
    assert max_difference((a.slots[:, :t], a.attention[:, :t]), (b.slots[:, :t], b.attention[:, :t])) == 0.0
    assert max_difference(a.slots[:, t], b.slots[:, t]) > 1e-3
    if t > 1:  # actions that lead to earlier frames, and what is predicted with them
        early = [(x.action_mean[:, : t - 1], x.next_features[:, : t - 1]) for x in (a, b)]
        assert max_difference(*early) == 0.0
    # The prediction from the last seen frame must not depend on the frame it predicts but through the action.
    fixed = (apply(model, variables, x, None, a.actions).next_features for x in (features, changed))
    assert max_difference(*fixed) == 0.0


def test_inverse_dynamics_depends_on_the_next_slot(sized):
    model, variables, features = sized
    changed = features.at[:, -1].set(-features[:, -1])
    a, b = (apply(model, variables, x).action_mean[:, -1] for x in (features, changed))
    assert max_difference(a, b) > 1e-3


def test_permuting_initial_slots_permutes_the_outputs(sized):
    model, variables, features = sized
    order = jnp.asarray([*range(1, model.num_factors), 0])
    initial = variables["params"]["factorizer"]["initial_slots"]
    permuted = {
        "params": variables["params"]
        | {"factorizer": variables["params"]["factorizer"] | {"initial_slots": initial[order]}}
    }
    a, b = apply(model, variables, features), apply(model, permuted, features)
    for name in ("slots", "attention", "action_mean", "action_log_var", "next_slots"):
        assert max_difference(getattr(a, name)[:, :, order], getattr(b, name)) < 1e-4, name
    assert max_difference(a.next_features, b.next_features) < 1e-4


def test_mapped_factors_equal_a_loop_over_factors(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    slots, params = out.slots, variables["params"]
    block = dict(num_blocks=model.num_blocks, num_heads=model.num_heads, history=model.history)
    stream = ContextStream(**block)
    context, _ = apply(stream, {"params": params["context"]}, slots[:, :-1])
    for i in range(model.num_factors):
        inverse = InverseDynamics(action_dim=model.action_dim, **block)
        posterior = apply(inverse, {"params": params["inverse_dynamics"]}, slots[:, :-1, i], slots[:, 1:, i], context)
        assert max_difference(posterior.mean, out.action_mean[:, :, i]) < 1e-5
        forward = ForwardDynamics(**block)
        arguments = slots[:, :-1, i], out.actions[:, :, i], context
        next_slot, _ = apply(forward, {"params": params["forward_dynamics"]}, *arguments)
        assert max_difference(next_slot, out.next_slots[:, :, i]) < 1e-5


@pytest.mark.parametrize("local_context", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_frame_by_frame_inference_equals_the_parallel_pass(size, local_context):
    model, variables, features = make_model(size, local_context=local_context)
    out = apply(model, variables, features)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    shapes = [x.shape for x in jax.tree.leaves(cache)]
    for t in range(features.shape[1] - 1):
        cache, step = apply(model, variables, cache, features[:, t], out.actions[:, t], method="step")
        assert [x.shape for x in jax.tree.leaves(cache)] == shapes  # the cost of a step does not grow
        assert max_difference(step.slots, out.slots[:, t]) < 1e-4
        assert max_difference(step.attention, out.attention[:, t]) < 1e-4
        assert max_difference(step.next_slots, out.next_slots[:, t]) < 1e-4
        assert max_difference(step.next_features, out.next_features[:, t]) < 1e-4


def test_an_untrained_model_predicts_that_little_changes():
    model, _, features = make_model(SIZES[1])
    variables = model.init({"params": jax.random.key(1), "action": jax.random.key(2)}, features)
    change = apply(model, variables, features).next_features - features[:, :-1]
    assert 0.0 < float(jnp.abs(change).max()) < 0.1 * float(features.std())


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


@pytest.mark.parametrize("local_context", [False, True])
def test_with_local_context_slots_see_what_changed_since_the_last_frame_and_no_earlier_one(local_context):
    """Without temporal attention: its window is of one frame."""
    model, variables, features = make_model(SIZES[2], history=1, local_context=local_context)
    changed = features.at[:, 0].set(-features[:, 0])
    a, b = (apply(model, variables, x, method="factorize").slots for x in (features, changed))
    assert (max_difference(a[:, 1], b[:, 1]) > 1e-4) == local_context
    assert max_difference(a[:, 2:], b[:, 2:]) == 0.0


def test_only_the_history_window_is_seen_by_one_temporal_attention():
    model, variables, features = make_model(SIZES[2], num_iterations=1, history=2)
    changed = features.at[:, 0].set(-features[:, 0])
    a, b = (apply(model, variables, x, method="factorize").slots for x in (features, changed))
    assert max_difference(a[:, 1], b[:, 1]) > 1e-4
    assert max_difference(a[:, 2:], b[:, 2:]) == 0.0


@pytest.mark.parametrize("change", [{}, {"position_in_keys": True}, {"local_context": True}], ids=str)
def test_gradients_reach_every_parameter(change):
    model, variables, features = make_model(SIZES[1], **change)

    def loss(variables):
        out = apply(model, variables, features, rngs={"action": jax.random.key(0)})
        return jnp.square(out.next_features - features[:, 1:]).sum() + out.action_kl.sum()

    gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables))
    # Only differences of the attention logits over the keys count, so a bias of the keys changes nothing.
    dead = {jax.tree_util.keystr(p) for p, g in gradients if float(jnp.abs(g).max()) < 1e-7}
    assert {name for name in dead if not name.endswith("['key']['bias']")} == set()


def test_without_an_action_rng_the_means_are_used(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    assert max_difference(out.actions, out.action_mean) == 0.0
    sampled = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert max_difference(sampled.actions, sampled.action_mean) > 1e-3


def test_parts_called_alone_equal_the_whole(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    slots = apply(model, variables, features, method="factorize").slots
    posterior = apply(model, variables, slots, method="infer_actions")
    next_slots = apply(model, variables, slots[:, :-1], posterior.mean, method="predict_slots")
    next_features = apply(model, variables, features[:, :-1], next_slots, method="aggregate")
    assert max_difference(posterior.mean, out.action_mean) < 1e-5
    assert max_difference(posterior.log_var, out.action_log_var) < 1e-5
    assert max_difference(next_slots, out.next_slots) < 1e-5
    assert max_difference(next_features, out.next_features) < 1e-5


def test_kl_by_hand():
    mean, log_var = jnp.zeros((3, 2, 2)), jnp.zeros((3, 2, 2))
    assert max_difference(ActionDistribution(mean, log_var).kl(), jnp.zeros((3, 2))) == 0.0
    mean, log_var = mean.at[:, 1, 0].set(2.0), log_var.at[:, 1, 1].set(jnp.log(0.25))
    # 2²/2 for the mean; (0.25 - 1 + log 4)/2 for the variance.
    expected = jnp.full(3, 2.0 + 0.5 * (0.25 - 1 + jnp.log(4.0)))
    assert max_difference(ActionDistribution(mean, log_var).kl()[:, 1], expected) < 1e-6


def test_one_frame_holds_no_action(sized):
    model, variables, features = sized
    slots = apply(model, variables, features[:, :1], method="factorize").slots
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        apply(model, variables, slots, method="infer_actions")


def test_bfloat16_is_close_to_float32():
    model, variables, features = make_model(SIZES[1])
    exact = apply(model, variables, features)
    rough = apply(make_model(SIZES[1], dtype=jnp.bfloat16)[0], variables, features)
    for name in ("attention", "action_mean", "next_features"):
        a, b = getattr(exact, name), getattr(rough, name).astype(jnp.float32)
        assert float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)) < 0.03, name
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
    assert rough.next_features.dtype == jnp.float32


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


def test_a_slot_calls_the_patch_one_on_by_the_same_change_everywhere():
    h = w = 8
    module = SlotCrossAttention(num_heads=1)
    patches, slot = jnp.zeros((h, w, 4)), jnp.zeros((1, 4))
    params = module.init(jax.random.key(0), patches, slot)["params"]
    # Rows and columns are read from the first two numbers of a slot, what it has to say from the others.
    params["call"] = {"kernel": jnp.eye(4, 2)[:, None], "bias": jnp.zeros((1, 2))}
    params["value"]["kernel"] = params["value"]["kernel"].at[:2].set(0.0)
    params["log_reach"] = jnp.log(jnp.full(1, 0.1))

    def called(row, column):
        """Patches that read the slot."""
        slot = jnp.concatenate([coordinates(h, w)[row, column], jnp.ones(2)])[None]
        read = module.apply({"params": params}, patches, slot)
        far = module.apply({"params": params}, patches, slot.at[0, :2].set(50.0))
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
        first, second = (module.apply({"params": params}, shown, shown, x, None) for x in (slots, other_slots))
        return first - second

    assert float(jnp.abs(put(shown)).max()) > 0.1
    assert max_difference(put(shown), put(other_shown)) > 1e-3
    params["something_comes"] = {"kernel": jnp.zeros((8, 1)), "bias": jnp.ones(1)}
    assert max_difference(put(shown), put(other_shown)) < 1e-5


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
    goes_on = continuity(jnp.stack([before, after])[None, :, None])[0]
    assert jnp.allclose(goes_on[1, :, 0], jnp.asarray([1, 1, 0, 0, 0]), atol=1e-3)  # by place alone
    assert jnp.allclose(goes_on[1, :, 4], jnp.asarray([0, 0, 0, 1, 1]), atol=1e-3)
    assert jnp.allclose(goes_on[1, :, 2], jnp.asarray([0, 1, 1, 1, 1]), atol=1e-3)
    assert jnp.allclose(goes_on[0, :, 4], jnp.asarray([0, 1, 1, 1, 1]), atol=1e-3)  # the first frame after itself


def test_in_balance_an_entity_that_turns_stays_in_its_slot():
    """Two slots know two entities by their looks, but when the first one turns, each bids more for the other."""
    entity, turned, other = jnp.eye(3)
    background = jnp.zeros(3)
    frames = jnp.stack([jnp.stack([first, background, background, other]) for first in (entity, turned)])
    features = frames[None, :, None]
    alike = alikeness(features, features)
    weight = 1 / alike.sum(axis=-1)[:, :, None]
    bids = jnp.asarray([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 1.0, 1.0, 0]])
    logits = jnp.stack([bids, bids[:, ::-1]])[None]

    def share(goes_on):
        return share_out(logits, Patches(None, None, weight, alike, goes_on), jnp.full((), 6.0))[0]

    own, swapped = (jnp.asarray([0, 1]), jnp.asarray([0, 3])), (jnp.asarray([1, 0]), jnp.asarray([0, 3]))
    forgetful, balanced = share(jnp.ones_like(alike)), share(continuity(features))
    assert (forgetful[1][swapped] > 0.9).all()
    assert (balanced[0][own] > 0.9).all()
    assert (balanced[1][own] > 0.6).all()
    patches = Patches(None, None, weight, alike, continuity(features))
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
        variables = model.init(jax.random.key(0), background)
        alone, both = (model.apply(variables, features)[0].slots for features in (background, entity))
        return float(jnp.linalg.norm(both - alone) / jnp.linalg.norm(alone))

    assert change(0.0) < 0.1 < 0.3 < change(1.0)
