"""Binding on constructed attention and slots, whose answers are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.evaluation.attention import attention_on_cells
from flam_jax.evaluation.evaluators import binding
from flam_jax.evaluation.probes import probe_cells

GRID, SLOTS, AGENTS = 4, 3, 2
RNG = np.random.default_rng(0)
# Two agents, never in one cell.
PLACES = np.stack(
    [np.stack(np.divmod(RNG.choice(GRID * GRID, 2, replace=False), GRID), -1) for _ in range(5 * 6)]
).reshape(5, 6, AGENTS, 2)


def masks(owners: list[int | None], patches: int = GRID, strength: float = 1.0) -> np.ndarray:
    """Masks in which slot `owners[n]` looks at agent n with `strength`, and the last slot at the rest."""
    attention = np.zeros((5, 6, SLOTS, patches, patches), np.float32)
    attention[:, :, -1] = 1.0
    ratio = patches // GRID
    for clip, frame, agent in np.ndindex(5, 6, AGENTS):
        if owners[agent] is None:
            continue
        row, column = PLACES[clip, frame, agent] * ratio
        cell = (slice(row, row + ratio), slice(column, column + ratio))
        attention[clip, frame, owners[agent]][cell] = strength
        attention[clip, frame, -1][cell] -= strength
    return attention


def on_cells(attention: np.ndarray, places: np.ndarray = PLACES) -> tuple[np.ndarray, np.ndarray]:
    mass, cover = attention_on_cells(jnp.asarray(attention), jnp.asarray(places), (GRID, GRID))
    return np.asarray(mass), np.asarray(cover)


def bound(attention: np.ndarray) -> dict:
    return binding.attention_binding(*(part.mean((0, 1)) for part in on_cells(attention)))


@pytest.mark.parametrize("patches", [GRID, 2 * GRID])
@pytest.mark.parametrize("owners", [[0, 1], [1, 0]])
def test_every_agent_in_a_slot_of_its_own(owners, patches):
    found = bound(masks(owners, patches))
    assert found == {"attention": [1.0, 1.0], "cover": [1.0, 1.0], "slots": owners, "holders": owners, "distinct": True}


def test_a_patch_larger_than_a_cell_shares_its_mass():
    attention = np.zeros((1, 1, 1, 2, 2), np.float32)
    attention[0, 0, 0, 0, 0] = 1.0
    mass, cover = on_cells(attention, np.array([[[[0, 1]]]]))
    np.testing.assert_allclose(mass, [[[[0.25]]]])
    np.testing.assert_allclose(cover, [[[[1.0]]]])


def test_two_agents_in_one_slot_are_not_distinct():
    found = bound(masks([0, 0]))
    assert not found["distinct"]
    assert len(set(found["holders"])) == 1
    # Half of the slot's attention is on each; only one agent can call it its own.
    assert sorted(found["attention"])[1] == 0.5
    assert sorted(found["attention"])[0] < 0.2


def test_an_agent_in_the_background_is_diluted():
    """Un-normalised, the mask on the agent is 1; but 15 of 16 parts of what the slot reads are floor."""
    found = bound(masks([0, None]))
    assert found["attention"][0] == 1.0
    assert found["attention"][1] == pytest.approx(1 / 15, abs=1e-3)


def test_a_slot_that_is_all_but_dead_holds_nothing():
    """Its faint mask lies on agent 1 alone, but the agent's cell is the background's."""
    attention = masks([0, 1])
    faint = 0.99 * attention[:, :, 1]
    attention[:, :, 1] -= faint
    attention[:, :, 2] += faint
    found = bound(attention)
    assert found["slots"][0] == 0
    assert found["cover"][1] == pytest.approx(0.01 if found["slots"][1] == 1 else 0.99, abs=1e-5)
    # As likely as not it is better called the background's: never a slot of its own with all of its cell.
    assert min(found["attention"][1], found["cover"][1]) < 0.1


def test_a_dead_slot_is_nothing():
    assert on_cells(np.zeros((5, 6, 1, 4, 4), np.float32))[0].max() == 0


def test_fewer_slots_than_agents():
    scores = np.array([[0.2, 0.9, 0.1]], np.float32)
    assert binding.match(scores) == [-1, 0, -1]
    assert binding.matched_scores(scores, [-1, 0, -1]) == [0.0, pytest.approx(0.9), 0.0]


def synthetic_slots(count: int, seed: int):
    """Slot 1 holds agent 0's place in a rotated one-hot code, slot 0 agent 1's row only, slot 2 noise."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, GRID, (count, AGENTS, 2))
    codes = np.eye(GRID)[places]
    mixing = np.linalg.qr(np.random.default_rng(9).normal(size=(2 * GRID, 2 * GRID)))[0]
    slots = rng.normal(size=(count, SLOTS, 2 * GRID))
    slots[:, 1] = codes[:, 0].reshape(count, -1) @ mixing
    slots[:, 0, :GRID] = codes[:, 1, 0]
    return slots.astype(np.float32), places.astype(np.int32)


def test_linear_probes_read_what_is_there():
    fit, test = synthetic_slots(600, 1), synthetic_slots(400, 2)
    fitted, tested, likelihood = probe_cells(*fit, *test, classes=GRID, iterations=60)
    tested = np.asarray(tested)
    assert tested[1, 0] == 1.0
    # The row is known, the column is guessed.
    assert 0.15 < tested[0, 1] < 0.4
    assert tested[2].max() < 0.15
    likelihood = np.asarray(likelihood).mean(axis=0)
    assert likelihood[1, 0] > 0.95
    assert likelihood[2].max() < 0.15
    found = binding.probe_binding(np.asarray(fitted), tested)
    assert found["probe_per_agent"] == [1.0, pytest.approx(tested[0, 1], abs=1e-4)]
    assert found["probe_accuracy"] == pytest.approx((1 + tested[0, 1]) / 2, abs=1e-4)
