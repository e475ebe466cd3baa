"""Object-centric models: reconstruction alone teaches their slots, prediction all the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.baselines.object_centric import SlotMixerDecoder
from flam_jax.dynamics.loss import dynamics_loss
from tests.dynamics.models import apply, make, max_difference, without_gradient

NAMES = ("slotformer", "playslot")


def test_actions_carry_at_least_a_code_or_nothing():
    model, variables, features, _ = make("playslot")
    out = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert float(out.action_kl.min()) >= np.log(8) - 1e-5
    assert out.extras["action_codes"].shape == out.action_kl.shape
    model, variables, features, _ = make("slotformer")
    out = apply(model, variables, features)
    assert not out.extras
    assert float(jnp.abs(out.action_kl).max()) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_imagined_slots_are_those_of_a_pass_over_all_of_them(name):
    model, variables, features, _ = make(name)
    out = apply(model, variables, features)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    cache, slots, masks = apply(model, variables, cache, features[:, 0], method="observe_frame")
    shown, imagined = features[:, 0], [slots]
    for t in range(3):
        cache, slots, shown = apply(model, variables, cache, shown, slots, masks, out.actions[:, t], method="predict")
        cache, slots, masks = apply(model, variables, cache, shown, slots, method="observe_frame")
        imagined.append(slots)
    given = (jnp.stack(imagined[:3], axis=1), out.actions[:, :3])
    assert (
        max_difference(jnp.stack(imagined[1:], axis=1), apply(model, variables, *given, method="predict_slots")) < 1e-5
    )
    assert max_difference(imagined[2], out.slots[:, 2]) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_slots_learn_first_and_alone_and_then_not_at_all(name):
    model, variables, features, _ = make(name)

    @jax.jit
    def gradient(variables, progress):
        def loss(variables):
            options = dict(kl_weight=0.1, prediction_steps=1, levels=(4, 4, 4), progress=progress)
            return dynamics_loss(model, variables, features, jax.random.key(0), **options)[0]

        return jax.grad(loss)(variables)["params"]

    slots, dynamics = model.spec.phases
    for phase, progress in ((slots, 0.49), (dynamics, 0.5)):
        for part, leaves in gradient(variables, jnp.float32(progress)).items():
            if part in phase.parts:
                assert without_gradient(leaves) == set(), part
            else:
                assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(leaves)) == 0.0, part


def test_prior_actions_are_codes_with_a_variation():
    model, variables, *_ = make("playslot")
    drawn = model.apply(variables, jax.random.key(0), (50, 4), method="sample_actions")
    assert 1.0 < float(drawn.std()) < 2.0


def test_the_decoder_knows_no_order_of_slots():
    decoder, slots = SlotMixerDecoder(2, (3, 4), 2), jax.random.normal(jax.random.key(1), (1, 4, 8))
    variables = jax.jit(decoder.init)(jax.random.key(0), slots)
    (one, masks), (other, other_masks) = (decoder.apply(variables, x) for x in (slots, slots[:, ::-1]))
    assert one.shape == (1, 3, 4, 2)
    assert jnp.allclose(masks.sum(axis=1), 1.0, atol=1e-5)
    assert max_difference((one, masks), (other, other_masks[:, ::-1])) < 1e-6
    assert max_difference(one, decoder.apply(variables, slots.at[:, 2].set(0.0))[0]) > 1e-3
