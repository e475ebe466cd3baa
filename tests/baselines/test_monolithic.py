"""Monolithic models answer FLAM's methods, see no frame too early, and learn one action a frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.baselines.codebook import Codebook, CodeDistribution
from flam_jax.baselines.monolithic import Monolithic
from flam_jax.dynamics.flam import FlamOutput
from tests.dynamics.models import apply, max_difference, random_parameters

BOTTLENECKS = ("gaussian", "codebook")


@functools.cache
def make(bottleneck, b=2, t=4, grid=3, c=2, blocks=2, **changes):
    fields = dict(grid=grid, feature_dim=c, action_dim=3, model_dim=8, num_blocks=blocks, num_heads=2, history=3)
    model = Monolithic(bottleneck=bottleneck, **(fields | changes))
    features = jnp.asarray(np.random.default_rng(0).uniform(-1.0, 1.0, (b, t, grid, grid, c)), jnp.float32)
    return model, random_parameters(model, features), features


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_shapes_are_flams_with_one_factor(bottleneck):
    model, variables, features = make(bottleneck)
    out = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert isinstance(out, FlamOutput)
    assert out.slots.shape == (2, 4, 1, 18)
    assert out.attention.shape == (2, 4, 1, 3, 3)
    assert out.action_mean.shape == out.action_log_var.shape == out.actions.shape == (2, 3, 1, 3)
    assert out.action_kl.shape == (2, 3, 1)
    assert out.next_features.shape == (2, 3, 3, 3, 2)
    if bottleneck == "gaussian":
        assert out.action_codes is None
    else:
        codes = variables["params"]["codebook"]["codes"][out.action_codes]
        assert max_difference(codes, out.action_mean) < 1e-6


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_nothing_depends_on_later_frames(bottleneck):
    model, variables, features = make(bottleneck)
    changed = features.at[:, 3].set(-features[:, 3])
    a, b = (apply(model, variables, x) for x in (features, changed))
    assert (
        max_difference((a.action_mean[:, :2], a.next_features[:, :2]), (b.action_mean[:, :2], b.next_features[:, :2]))
        == 0.0
    )
    fixed = (apply(model, variables, x, None, a.actions).next_features for x in (features, changed))
    assert max_difference(*fixed) == 0.0
    assert max_difference(a.next_features, apply(model, variables, features, None, -a.actions).next_features) > 1e-4


def test_the_action_depends_on_the_frame_it_leads_to():
    model, variables, features = make("gaussian")
    changed = features.at[:, 3].set(-features[:, 3])
    a, b = (apply(model, variables, x).action_mean[:, -1] for x in (features, changed))
    assert max_difference(a, b) > 1e-3


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_frame_by_frame_inference_equals_the_parallel_pass(bottleneck, blocks):
    model, variables, features = make(bottleneck, t=6, blocks=blocks)
    out = apply(model, variables, features)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    for t in range(features.shape[1] - 1):
        cache, step = apply(model, variables, cache, features[:, t], out.actions[:, t], method="step")
        assert max_difference(step.next_features, out.next_features[:, t]) < 1e-4
        assert max_difference(step.slots, out.slots[:, t]) < 1e-6


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_parts_called_alone_equal_the_whole(bottleneck):
    model, variables, features = make(bottleneck)
    out = apply(model, variables, features)
    slots = apply(model, variables, features, method="factorize").slots
    actions = apply(model, variables, slots, method="infer_actions")
    next_slots = apply(model, variables, slots[:, :-1], actions.mean, method="predict_slots")
    next_features = apply(model, variables, features[:, :-1], next_slots, method="aggregate")
    assert max_difference((actions.mean, next_features), (out.action_mean, out.next_features)) < 1e-5
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        apply(model, variables, slots[:, :1], method="infer_actions")


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_gradients_reach_every_parameter(bottleneck):
    model, variables, features = make(bottleneck)

    def loss(variables):
        out = model.apply(variables, features, rngs={"action": jax.random.key(0)})
        return jnp.square(out.next_features - features[:, 1:]).sum() + out.action_kl.sum() + out.auxiliary_loss

    gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables))
    dead = {jax.tree_util.keystr(p) for p, g in gradients if float(jnp.abs(g).max()) < 1e-7}
    assert {name for name in dead if not name.endswith("['key']['bias']")} == set()


def test_an_untrained_model_predicts_that_little_changes():
    model, _, features = make("gaussian")
    variables = jax.jit(model.init)({"params": jax.random.key(1), "action": jax.random.key(2)}, features)
    change = apply(model, variables, features).next_features - features[:, :-1]
    assert 0.0 < float(jnp.abs(change).max()) < 0.2 * float(features.std())


def test_bfloat16_is_close_to_float32():
    model, variables, features = make("gaussian")
    exact = apply(model, variables, features)
    rough = apply(make("gaussian", dtype=jnp.bfloat16)[0], variables, features)
    for name in ("action_mean", "next_features"):
        a, b = getattr(exact, name), getattr(rough, name)
        assert b.dtype == jnp.float32
        assert float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)) < 0.03, name


def test_actions_drawn_from_the_prior_are_codes_or_normal():
    model, variables, _ = make("codebook")
    codes = variables["params"]["codebook"]["codes"]
    drawn = model.apply(variables, jax.random.key(0), (50, 4), method="sample_actions")
    assert drawn.shape == (50, 4, 1, 3)
    nearest = jnp.abs(drawn[..., None, :] - codes).sum(axis=-1)
    assert float(nearest.min(axis=-1).max()) == 0.0
    assert set(np.asarray(nearest.argmin(axis=-1)).ravel().tolist()) == set(range(8))
    model, variables, _ = make("gaussian")
    drawn = model.apply(variables, jax.random.key(0), (500, 4), method="sample_actions")
    assert drawn.shape == (500, 4, 1, 3)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.1)


def test_a_codebook_gives_the_nearest_code_and_says_its_size_in_nats():
    book = Codebook(4, 2)
    variables = {"params": {"codes": jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])}}
    found = book.apply(variables, jnp.asarray([[0.9, 0.2], [0.1, -0.1], [5.0, 6.0]]))
    assert isinstance(found, CodeDistribution)
    assert found.index.tolist() == [1, 0, 3]
    assert max_difference(found.mean, variables["params"]["codes"][jnp.asarray([1, 0, 3])]) < 1e-6
    assert found.kl().tolist() == pytest.approx([np.log(4)] * 3)
    assert max_difference(found.sample(jax.random.key(0)), found.mean) == 0.0
    gradient = jax.grad(lambda x: (book.apply(variables, x).mean * jnp.asarray([2.0, 3.0])).sum())(jnp.ones((1, 2)))
    assert gradient.tolist() == [[2.0, 3.0]]  # straight through


def test_dead_codes_come_back_into_use():
    """Encodings in four clusters far from where the codes start: without the pull on dead codes one code takes all."""
    book = Codebook(4, 2)
    centres = jnp.asarray([[9.0, 9.0], [9.0, 11.0], [11.0, 9.0], [11.0, 11.0]])
    params = book.init(jax.random.key(0), centres)
    assert len(set(book.apply(params, centres).index.tolist())) == 1

    @jax.jit
    def step(params, key):
        noise, choice, loss = jax.random.split(key, 3)
        points = centres[jax.random.randint(choice, (64,), 0, 4)] + 0.1 * jax.random.normal(noise, (64, 2))
        gradient = jax.grad(lambda p: book.apply(p, points, loss, method="loss"))(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    for key in jax.random.split(jax.random.key(1), 400):
        params = step(params, key)
    assert len(set(book.apply(params, centres).index.tolist())) == 4
