"""Monolithic models: one slot is the frame, one action a frame."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.baselines.codebook import Codebook, CodeDistribution
from tests.dynamics.models import CHANNELS, FRAMES, GRID, apply, make, max_difference


@pytest.mark.parametrize("name", ["adaworld", "genie"])
def test_the_one_slot_is_the_frame(name):
    model, variables, features, _ = make(name)
    out = apply(model, variables, features)
    assert out.slots.shape == (2, FRAMES, 1, GRID[0] * GRID[1] * CHANNELS)
    assert max_difference(out.slots.reshape(features.shape), features) == 0.0
    assert float(out.attention.min()) == 1.0
    assert ("action_codes" in out.extras) == (name == "genie")
    if name == "genie":
        codes = variables["params"]["codebook"]["codes"][out.extras["action_codes"]]
        assert max_difference(codes, out.action_mean) < 1e-6


@pytest.mark.parametrize("name", ["adaworld", "genie"])
def test_the_prediction_depends_on_the_action_and_the_action_on_the_frame_it_leads_to(name):
    model, variables, features, _ = make(name)
    out = apply(model, variables, features)
    other = apply(model, variables, features, None, -out.actions)
    assert max_difference(out.next_features, other.next_features) > 1e-4
    if name == "adaworld":  # a code may stay
        changed = apply(model, variables, features.at[:, -1].set(-features[:, -1]))
        assert max_difference(out.action_mean[:, -1], changed.action_mean[:, -1]) > 1e-3


def test_an_untrained_model_predicts_that_little_changes():
    model, _, features, _ = make("adaworld")
    variables = jax.jit(model.init)({"params": jax.random.key(1), "action": jax.random.key(2)}, features)
    change = apply(model, variables, features).next_features - features[:, :-1]
    assert 0.0 < float(jnp.abs(change).max()) < 0.2 * float(features.std())


def test_bfloat16_is_close_to_float32():
    model, variables, features, _ = make("adaworld")
    exact = apply(model, variables, features)
    rough = apply(make("adaworld", dtype=jnp.bfloat16)[0], variables, features)
    for name in ("action_mean", "next_features"):
        a, b = getattr(exact, name), getattr(rough, name)
        assert b.dtype == jnp.float32
        assert float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)) < 0.03, name


def test_actions_drawn_from_the_prior_are_codes_or_normal():
    model, variables, *_ = make("genie")
    codes = variables["params"]["codebook"]["codes"]
    drawn = model.apply(variables, jax.random.key(0), (50, 4), method="sample_actions")
    nearest = np.abs(np.asarray(drawn)[..., None, :] - np.asarray(codes)).sum(axis=-1)
    assert float(nearest.min(axis=-1).max()) == 0.0
    assert set(np.asarray(nearest.argmin(axis=-1)).ravel().tolist()) == set(range(8))
    model, variables, *_ = make("adaworld")
    drawn = model.apply(variables, jax.random.key(0), (500, 4), method="sample_actions")
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.1)


def test_a_codebook_gives_the_nearest_code_and_carries_its_size_in_nats():
    book = Codebook(4, 2)
    variables = {"params": {"codes": jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])}}
    found = book.apply(variables, jnp.asarray([[0.9, 0.2], [0.1, -0.1], [5.0, 6.0]]))
    assert isinstance(found, CodeDistribution)
    assert found.index.tolist() == [1, 0, 3]
    assert max_difference(found.mean, variables["params"]["codes"][jnp.asarray([1, 0, 3])]) < 1e-6
    assert found.kl().tolist() == pytest.approx([np.log(4)] * 3)
    assert max_difference(found.sample(jax.random.key(0)), found.mean) == 0.0
    gradient = jax.grad(lambda x: (book.apply(variables, x).mean * jnp.asarray([[2.0, 3.0]])).sum())(jnp.ones((1, 2)))
    assert gradient.tolist() == [[2.0, 3.0]]  # straight through


def test_the_loss_of_a_codebook_draws_codes_to_encodings_and_encodings_to_codes():
    """And a quarter as strongly the latter (van den Oord et al. 2017). All codes are used: none is drawn as dead."""
    book, codes = Codebook(2, 2), jnp.asarray([[0.0, 0.0], [4.0, 4.0]])
    encodings = jnp.asarray([[1.0, 0.0], [4.0, 3.0]])

    def loss(codes, encodings):
        return book.apply({"params": {"codes": codes}}, encodings, jax.random.key(0), method="loss")

    of_codes, of_encodings = jax.grad(loss, argnums=(0, 1))(codes, encodings)
    # Of the mean over two examples.
    np.testing.assert_allclose(of_codes, codes - encodings, atol=0.01)
    np.testing.assert_allclose(of_encodings, 0.25 * (encodings - codes), atol=1e-6)


def test_the_kl_that_is_trained_is_that_of_the_posterior():
    model, variables, features, _ = make("adaworld")
    out = apply(model, variables, features)
    mean, log_var = out.action_mean, out.action_log_var
    kl = 0.5 * (jnp.square(mean) + jnp.exp(log_var) - 1 - log_var).sum(axis=(-2, -1))
    assert float(out.losses["kl"]) == pytest.approx(float(kl.mean()), rel=1e-5)
    assert float(out.losses["kl"]) > 0.01


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
