"""What latent actions tell, on synthetic actions that tell all or nothing."""

import numpy as np
import pytest

from flam_jax.evaluation.evaluators import leak

GRID, AGENTS, SIZE = 5, 2, 4


def walk(clips: int, seed: int) -> np.ndarray:
    """Agents that stay or step to a neighbouring cell, on a board that closes on itself nowhere."""
    rng = np.random.default_rng(seed)
    steps = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    places = [rng.integers(0, GRID, (clips, AGENTS, 2))]
    for _ in range(6):
        places.append(np.clip(places[-1] + steps[rng.integers(0, 5, (clips, AGENTS))], 0, GRID - 1))
    return np.stack(places, axis=1).astype(np.int32)


def chosen(places: np.ndarray) -> np.ndarray:
    """True actions: whether an agent goes on, by rows or by columns. The last leads nowhere."""
    move = np.abs(np.diff(places, axis=1, append=places[:, -1:]))
    return (move[..., 0] + 2 * move[..., 1]).astype(np.int32)


def scores(act) -> dict:
    """Leak of the actions `act(places)`; agent 0 sits in slot 1 and agent 1 in slot 0."""
    parts = []
    for clips, seed in ((120, 0), (60, 1)):
        places = walk(clips, seed)
        own = act(places, np.random.default_rng(seed)).astype(np.float32)
        parts.append((own[:, :, ::-1], places, chosen(places)))
    return leak.action_leak(parts[0], parts[1], slots=[1, 0], grid_size=GRID)


def test_an_action_that_is_the_next_place_leaks_all_of_it():
    def act(places, rng):
        after = places[:, 1:]
        # A quarter turn, so that no unit is the row or the column itself.
        return np.stack([after[..., 0] + after[..., 1], after[..., 0] - after[..., 1]], -1)

    found = scores(act)
    assert found["position"]["action_mlp"] > 0.97
    assert found["position"]["action_mlp"] > found["position"]["position_only"] + 0.3
    assert min(found["position"]["action_mlp_per_agent"]) > 0.95


def test_an_action_of_noise_tells_nothing():
    found = scores(lambda places, rng: rng.normal(size=(*places[:, 1:].shape[:3], SIZE)))
    assert found["position"]["action_mlp"] < found["position"]["chance"] + 0.06
    assert found["move"]["action_mlp"] < found["move"]["chance"] + 0.06
    assert found["true_action"]["action_mlp"] < found["true_action"]["chance"] + 0.06
    assert found["position"]["action_and_position"] < found["position"]["position_only"] + 0.05


def test_an_honest_action_tells_the_move_and_not_the_place():
    def act(places, rng):
        move = places[:, 1:] - places[:, :-1]
        return move + 0.05 * rng.normal(size=move.shape)

    found = scores(act)
    assert found["move"]["action_mlp"] == pytest.approx(1.0, abs=0.01)
    assert found["true_action"]["action_mlp"] == pytest.approx(1.0, abs=0.01)
    assert found["true_action"]["chance"] < 0.6
    assert found["position"]["action_mlp"] < 0.2
    assert found["position"]["action_and_position"] > 0.95
