"""Each ablation lacks what it says it lacks, and nothing else."""

import jax
import jax.numpy as jnp
import pytest

from flam_jax.baselines.ablations import coupled_flam, recurrent_flam
from flam_jax.baselines.recurrent import RecurrentFactorizer
from flam_jax.dynamics.flam import flam
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.dynamics.slot_attention import SlotAttention
from tests.dynamics.models import apply, make, max_difference


def test_without_temporal_attention_slots_start_from_the_last_frames():
    """The first frame's slots are those of a frame alone; those of the second come from where the first ended."""
    model, variables, features, _ = make("recurrent")
    names = set(variables["params"]["factorizer"])
    assert names == set(make("flam")[1]["params"]["factorizer"]) - {"time", "time_norm"}
    slots = apply(model, variables, features, method="factorize").slots
    alone = apply(model, variables, features[:, :1], method="factorize").slots
    assert max_difference(slots[:, :1], alone) < 1e-5
    cache = apply(model, variables, features[:, 0], method="init_cache")
    cache, *_ = apply(model, variables, cache, features[:, 0], method="observe_frame")
    factorizer = variables["params"]["factorizer"] | {"initial_slots": cache["factorizer"][0]}
    moved = {"params": variables["params"] | {"factorizer": factorizer}}
    second = apply(model, moved, features[:1, 1:2], method="factorize").slots
    assert max_difference(second, slots[:1, 1:2]) < 1e-4


def test_slots_that_go_on_from_frame_to_frame_do_not_grow():
    """However long the video is; dynamics that were trained on short windows would not know them any more."""
    features = jnp.round(jax.random.normal(jax.random.key(0), (2, 40, 3, 3, 3)))
    factorizer = RecurrentFactorizer(3, SlotAttention(8))
    variables = jax.tree.map(lambda leaf: 3 * leaf, jax.jit(factorizer.init)(jax.random.key(1), features[:, :1]))
    state = factorizer.apply(variables, 2, method="init_cache")
    most = jnp.maximum(1.0, jnp.abs(state).max())
    step = jax.jit(lambda state, frame: factorizer.apply(variables, frame, state))
    sizes = []
    for frame in range(40):
        factors, state = step(state, features[:, frame : frame + 1])
        assert jnp.abs(state).max() <= most + 1e-5
        sizes.append(float(jnp.sqrt(jnp.square(factors.slots).mean())))
    assert max(sizes[20:]) < 1.2 * max(sizes[:4])


def test_all_three_have_about_as_many_parameters():
    """At the sizes of the CPU presets."""

    def count(build):
        model = build(num_factors=8, action_dim=8, model_dim=64, num_heads=4, history=4)
        features = jnp.zeros((1, 2, 8, 8, 5))
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), features)))

    for build in (recurrent_flam, coupled_flam):
        assert count(build) == pytest.approx(count(flam), rel=0.1), build


def test_under_a_separation_penalty_recurrent_slots_are_held_to_what_they_held_in_the_frame_before():
    """A call forgets what was held before it, and slots carry over in the cache: with the penalty that differs."""
    features = jnp.round(jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 3)))
    factorizer = RecurrentFactorizer(3, SlotAttention(8, inverse_frequency_power=1.0), num_iterations=2)
    variables = jax.jit(factorizer.init)(jax.random.key(1), features)
    start = factorizer.apply(variables, 2, method="init_cache")
    run = jax.jit(factorizer.apply)

    def second(penalty):
        annealing = SlotAnnealing(jnp.full(2, 4.0), jnp.zeros((2, 3, 8)), jnp.full((), penalty))
        both, _ = run(variables, features, start, annealing)
        _, cache = run(variables, features[:, :1], start, annealing)
        alone, _ = run(variables, features[:, 1:], cache, annealing, features[:, 0])
        return both.attention[:, 1:], alone.attention

    assert max_difference(*second(0.0)) < 1e-5
    assert max_difference(*second(6.0)) > 1e-3
