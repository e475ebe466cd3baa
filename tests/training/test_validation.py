"""Validation windows are the same whoever asks."""

import numpy as np
import pytest

from flam_jax.training.validation import NUM_WINDOWS, mean_values, validation_batches


def records(count):
    rng = np.random.default_rng(0)
    return [{"frames": rng.integers(0, 256, (6, 4, 4, 3), np.uint8)} for _ in range(count)]


def joined(batches):
    return np.concatenate([batch["frames"] for batch in batches])


@pytest.mark.parametrize("count", [3, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_windows_do_not_depend_on_the_batch_size(count, batch_size):
    source = records(count)
    batches = validation_batches(source, batch_size, window=2)
    assert {len(batch["frames"]) for batch in batches} == {min(batch_size, NUM_WINDOWS, count)}
    found = joined(batches)
    assert found.shape[1:] == (2, 4, 4, 3)
    assert NUM_WINDOWS - count < len(found) <= NUM_WINDOWS
    np.testing.assert_array_equal(found, joined(validation_batches(source, 1, window=2))[: len(found)])


def test_other_fields_are_cut_with_the_frames():
    source = [record | {"actions": record["frames"][:, 0, 0, 0]} for record in records(5)]
    for batch in validation_batches(source, 2, window=3, num_windows=4, keys=("frames", "actions")):
        np.testing.assert_array_equal(batch["actions"], batch["frames"][:, :, 0, 0, 0])


def test_means_are_over_batches():
    batches = [{"x": np.zeros(2)}, {"x": np.ones(2)}]
    assert mean_values(lambda batch: {"mean": batch["x"].mean()}, batches) == {"mean": 0.5}
