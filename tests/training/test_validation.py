"""Validation windows are the same whoever asks."""

import numpy as np
import pytest

from flam_jax.training.validation import NUM_WINDOWS, mean_values, validation_frames


def records(count):
    rng = np.random.default_rng(0)
    return [{"frames": rng.integers(0, 256, (6, 4, 4, 3), np.uint8)} for _ in range(count)]


@pytest.mark.parametrize("count", [3, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_windows_do_not_depend_on_the_batch_size(count, batch_size):
    source = records(count)
    batches = validation_frames(source, batch_size, window=2)
    assert {len(batch) for batch in batches} == {min(batch_size, NUM_WINDOWS, count)}
    found = np.concatenate(batches)
    assert found.shape[1:] == (2, 4, 4, 3)
    assert NUM_WINDOWS - count < len(found) <= NUM_WINDOWS
    np.testing.assert_array_equal(found, np.concatenate(validation_frames(source, 1, window=2))[: len(found)])


def test_means_are_over_batches():
    assert mean_values(lambda batch: {"mean": batch.mean()}, [np.zeros(2), np.ones(2)]) == {"mean": 0.5}
