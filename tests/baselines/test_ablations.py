"""Each ablation lacks what it says it lacks, and nothing else."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from flam_jax.baselines.ablations import CoupledFlam, RecurrentFactorizer, RecurrentFlam
from flam_jax.dynamics.factorizer import Competition
from flam_jax.dynamics.flam import Flam
from tests.dynamics.models import SIZES, apply, make_model, max_difference

ABLATIONS = (RecurrentFlam, CoupledFlam)


@pytest.mark.parametrize("model_type", ABLATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_frame_by_frame_inference_equals_the_parallel_pass(size, model_type):
    model, variables, features = make_model(size, model_type)
    out = apply(model, variables, features)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    for t in range(features.shape[1] - 1):
        cache, step = apply(model, variables, cache, features[:, t], out.actions[:, t], method="step")
        for name in ("slots", "attention", "next_slots", "next_features"):
            assert max_difference(getattr(step, name), getattr(out, name)[:, t]) < 1e-4, name


@pytest.mark.parametrize("model_type", ABLATIONS)
def test_gradients_reach_every_parameter(model_type):
    model, variables, features = make_model(SIZES[1], model_type)

    def loss(variables):
        out = model.apply(variables, features, rngs={"action": jax.random.key(0)})
        return jnp.square(out.next_features - features[:, 1:]).sum() + out.action_kl.sum()

    gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables))
    dead = {jax.tree_util.keystr(p) for p, g in gradients if float(jnp.abs(g).max()) < 1e-7}
    assert {name for name in dead if not name.endswith("['key']['bias']")} == set()


@pytest.mark.parametrize("model_type", ABLATIONS)
def test_nothing_depends_on_later_frames(model_type):
    model, variables, features = make_model(SIZES[1], model_type)
    t = features.shape[1] - 1
    changed = features.at[:, t].set(-features[:, t])
    a, b = (apply(model, variables, x) for x in (features, changed))
    early = [(x.slots[:, :t], x.action_mean[:, : t - 1], x.next_features[:, : t - 1]) for x in (a, b)]
    assert max_difference(*early) == 0.0


def test_without_temporal_attention_slots_start_from_the_last_frames():
    """The first frame's slots are those of a frame alone; those of the second come from where the first ended."""
    model, variables, features = make_model(SIZES[1], RecurrentFlam)
    names = set(variables["params"]["factorizer"])
    assert names == set(make_model(SIZES[1])[1]["params"]["factorizer"]) - {"time", "time_norm"}
    slots = apply(model, variables, features, method="factorize").slots
    alone = apply(model, variables, features[:, :1], method="factorize").slots
    assert max_difference(slots[:, :1], alone) < 1e-5
    cache = apply(model, variables, features[:, 0], method="init_cache")
    actions = jnp.zeros((features.shape[0], model.num_factors, model.action_dim))
    cache, _ = apply(model, variables, cache, features[:, 0], actions, method="step")
    state = cache["factorizer"]
    factorizer = variables["params"]["factorizer"] | {"initial_slots": state[0]}
    moved = {"params": variables["params"] | {"factorizer": factorizer}}
    second = apply(model, moved, features[:1, 1:2], method="factorize").slots
    assert max_difference(second, slots[:1, 1:2]) < 1e-4


def test_slots_that_go_on_from_frame_to_frame_do_not_grow():
    """However long the video is; dynamics that were trained on short windows would not know them any more."""
    features = jnp.round(jax.random.normal(jax.random.key(0), (2, 40, 3, 3, 3)))
    factorizer = RecurrentFactorizer(
        num_factors=3, slot_dim=8, num_iterations=3, num_heads=2, history=2, attention_sharpness=4.0
    )
    variables = jax.tree.map(lambda leaf: 3 * leaf, jax.jit(factorizer.init)(jax.random.key(1), features[:, :1]))
    state = factorizer.apply(variables, (2,), method="init_cache")
    most = jnp.maximum(1.0, jnp.abs(state).max())
    step = jax.jit(lambda state, frame: factorizer.apply(variables, frame, state))
    sizes = []
    for frame in range(40):
        factors, state = step(state, features[:, frame : frame + 1])
        assert jnp.abs(state).max() <= most + 1e-5
        sizes.append(float(jnp.sqrt(jnp.square(factors.slots).mean())))
    assert max(sizes[20:]) < 1.2 * max(sizes[:4])


def test_coupled_dynamics_see_all_next_slots_and_all_actions():
    model, variables, features = make_model(SIZES[1], CoupledFlam)
    slots = apply(model, variables, features, method="factorize").slots
    changed = slots.at[:, -1, 1].add(1.0)
    a, b = (apply(model, variables, s, method="infer_actions").mean[:, -1, 0] for s in (slots, changed))
    assert max_difference(a, b) > 1e-3
    actions = jnp.zeros((*slots.shape[:3], model.action_dim))
    a, b = (
        apply(model, variables, slots, x, method="predict_slots")[:, -1, 0]
        for x in (actions, actions.at[:, -1, 1].add(1.0))
    )
    assert max_difference(a, b) > 1e-3


def test_all_three_have_about_as_many_parameters():
    """At the sizes of the CPU presets."""

    def count(model_type):
        model = model_type(num_factors=8, action_dim=8, model_dim=64, num_heads=4, history=4)
        features = jnp.zeros((1, 2, 8, 8, 5))
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), features)))

    for model_type in ABLATIONS:
        assert count(model_type) == pytest.approx(count(Flam), rel=0.1), model_type


def test_in_balance_recurrent_slots_are_held_to_what_they_held_in_the_frame_before():
    """A call forgets what was held before it, and slots carry over in the cache: in balance that is a difference."""
    features = jnp.round(jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 3)))
    fields: dict[str, Any] = dict(
        num_factors=3, slot_dim=8, num_iterations=2, num_heads=2, history=2, attention_sharpness=4.0
    )
    factorizer = RecurrentFactorizer(**fields, rarity=1.0)
    variables = jax.jit(factorizer.init)(jax.random.key(1), features)
    start = factorizer.apply(variables, (2,), method="init_cache")
    run = jax.jit(factorizer.apply)

    def second(balance):
        competition = Competition(jnp.full(2, 4.0), jnp.zeros((2, 3, 8)), jnp.full((), balance))
        both, _ = run(variables, features, start, competition)
        _, cache = run(variables, features[:, :1], start, competition)
        alone, _ = run(variables, features[:, 1:], cache, competition, features[:, 0])
        return both.attention[:, 1:], alone.attention

    assert max_difference(*second(0.0)) < 1e-5
    assert max_difference(*second(6.0)) > 1e-3
