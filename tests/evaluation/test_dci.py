"""D, C and I of slots that are made to have known ones."""

import numpy as np
import pytest

from flam_jax.evaluation.evaluators.binding import probe_binding
from flam_jax.evaluation.evaluators.dci import chance_likelihood, dci
from flam_jax.evaluation.probes import probe_cells

GRID, AGENTS = 4, 3


def measured(make_slots):
    """What the probes and `dci` find in slots made from positions `[m n 2]` by `make_slots(codes, rng)`."""
    parts = []
    for seed, count in ((1, 800), (2, 400)):
        rng = np.random.default_rng(seed)
        places = rng.integers(0, GRID, (count, AGENTS, 2)).astype(np.int32)
        codes = np.eye(GRID)[places].reshape(count, AGENTS, -1)
        parts.append((make_slots(codes, rng).astype(np.float32), places))
    (fit_slots, fit_places), (slots, places) = parts
    fitted, tested, likelihood = (
        np.asarray(x) for x in probe_cells(fit_slots, fit_places, slots, places, classes=GRID, iterations=60)
    )
    accuracy = probe_binding(fitted, tested)["probe_accuracy"]
    found = dci(likelihood, chance_likelihood(fit_places, places, GRID), accuracy)
    return [found[name] for name in ("disentanglement", "completeness", "informativeness")]


def test_one_slot_an_agent_is_perfect():
    d, c, i = measured(lambda codes, rng: codes[:, [2, 0, 1]])
    assert d == pytest.approx(1.0, abs=0.03)
    assert c == pytest.approx(1.0, abs=0.03)
    assert i == 1.0


def test_slots_that_tell_of_all_agents_are_entangled():
    d, c, i = measured(lambda codes, rng: np.repeat(codes.reshape(len(codes), 1, -1), AGENTS, axis=1))
    assert d == pytest.approx(0.0, abs=0.02)
    assert c == pytest.approx(0.0, abs=0.02)
    assert i == 1.0


def test_two_slots_an_agent_are_disentangled_and_not_complete():
    d, c, i = measured(lambda codes, rng: np.concatenate([codes, codes], axis=1))
    assert d == pytest.approx(1.0, abs=0.03)
    assert c == pytest.approx(1 - np.log(2) / np.log(2 * AGENTS), abs=0.03)
    assert i == 1.0


def test_noise_tells_nothing():
    d, c, i = measured(lambda codes, rng: rng.normal(size=codes.shape))
    assert d == pytest.approx(0.0, abs=0.02)
    assert c == pytest.approx(0.0, abs=0.02)
    assert i == pytest.approx(1 / GRID**2, abs=0.05)


def test_what_is_not_defined_says_so():
    one_slot = dci(np.full((9, 1, 2), 0.5), np.full((9, 2), 0.1), 0.4)
    assert one_slot["completeness"] == "not defined: one slot"
    assert dci(np.full((9, 2, 1), 0.5), np.full((9, 1), 0.1), 0.4)["disentanglement"] == "not defined: one agent"
    nothing = dci(np.zeros((9, 2, 2)), np.zeros((9, 2)), 0.0)
    assert nothing == {"informativeness": 0.0, "disentanglement": 0.0, "completeness": 0.0}
