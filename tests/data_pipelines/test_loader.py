"""The loader: one order, whoever reads it, however often it is interrupted."""

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from data_pipelines import DataError, Dataset, make_loader, prepare
from tests.data_pipelines.conftest import MakeConfig, damage

Batch = dict[str, np.ndarray]


def assert_same(left: Iterable[Batch], right: Iterable[Batch]) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def take(loader: Iterable[Batch], count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def test_a_batch_holds_the_windows_it_names(multigrid: Dataset) -> None:
    source = multigrid.split("train")
    loader = make_loader(source, batch_size=6, window=3, seed=0)
    for batch in take(loader, 5):
        assert batch["frames"].shape == (6, 3, 32, 32, 3)
        assert batch["frames"].dtype == np.uint8
        assert batch["record"].dtype == batch["start"].dtype == np.int64
        for frames, record, start in zip(batch["frames"], batch["record"], batch["start"], strict=True):
            np.testing.assert_array_equal(frames, source[int(record)]["frames"][start : start + 3])


def test_every_record_once_an_epoch_in_a_new_order_with_new_windows(multigrid: Dataset) -> None:
    batches = take(make_loader(multigrid.split("train"), batch_size=8, window=2, seed=0), 6)
    epochs = [np.concatenate([b["record"] for b in batches[i : i + 2]]) for i in (0, 2, 4)]
    starts = [np.concatenate([b["start"] for b in batches[i : i + 2]]) for i in (0, 2, 4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(16))
    assert (epochs[0] != epochs[1]).any()
    assert (starts[0][epochs[0].argsort()] != starts[1][epochs[1].argsort()]).any()
    assert {int(start) for part in starts for start in part} == set(range(7))


def test_batches_run_across_the_ends_of_epochs_and_lose_nothing(multigrid: Dataset) -> None:
    batches = take(make_loader(multigrid.split("train"), batch_size=6, window=2, seed=0), 8)
    counts = Counter(np.concatenate([b["record"] for b in batches]).tolist())
    assert set(counts.values()) == {3}


def test_same_seed_same_batches_other_seed_other_batches(multigrid: Dataset) -> None:
    source = multigrid.split("train")
    one, two, other = (take(make_loader(source, batch_size=4, window=2, seed=seed), 9) for seed in (5, 5, 6))
    assert_same(one, two)
    assert any((a["record"] != b["record"]).any() for a, b in zip(one, other, strict=True))


def test_resumes_in_the_middle_of_an_epoch(multigrid: Dataset) -> None:
    source = multigrid.split("train")
    loader = make_loader(source, batch_size=3, window=2, seed=0)
    take(loader, 7)
    state = json.loads(json.dumps(loader.get_state()))
    expected = take(loader, 6)
    resumed = make_loader(source, batch_size=3, window=2, seed=0)
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_same(take(resumed, 6), expected)
    loader.set_state(state)  # back again, on an iterator that has run on
    assert_same(take(loader, 6), expected)


def test_two_processes_share_the_batch_of_one(multigrid: Dataset) -> None:
    """Each reads the rows of its devices, which need not be neighbours."""
    source = multigrid.split("train")
    whole = take(make_loader(source, batch_size=6, window=2, seed=0), 8)
    for rows in ([0, 1, 4], [2, 3, 5]):
        part = take(make_loader(source, batch_size=6, window=2, seed=0, rows=rows), 8)
        assert_same(part, [{key: value[rows] for key, value in batch.items()} for batch in whole])


def test_state_of_one_process_resumes_two(multigrid: Dataset) -> None:
    source = multigrid.split("train")
    one = make_loader(source, batch_size=6, window=2, seed=0)
    take(one, 4)
    expected = next(make_iterator := one)["record"]
    assert make_iterator.get_state() == {"step": 5}
    halves = []
    for rows in ([0, 1, 2], [3, 4, 5]):
        half = make_loader(source, batch_size=6, window=2, seed=0, rows=rows)
        half.set_state({"step": 4})
        halves.append(next(half)["record"])
    np.testing.assert_array_equal(np.concatenate(halves), expected)


def test_worker_processes_give_the_same_batches_and_take_the_same_state(multigrid: Dataset) -> None:
    source = multigrid.split("train")
    threads = make_loader(source, batch_size=4, window=2, seed=0)
    workers = make_loader(source, batch_size=4, window=2, seed=0, num_workers=2)
    assert_same(take(workers, 5), take(threads, 5))
    workers.close()
    state = workers.get_state()
    assert state == threads.get_state()
    workers.set_state(state)
    assert_same(take(workers, 3), take(threads, 3))
    workers.close()


def test_one_pass_in_order_keeps_every_record(multigrid: Dataset) -> None:
    loader = make_loader(multigrid.split("train"), batch_size=6, window=8, seed=0, shuffle=False, repeat=False)
    batches = list(loader)
    assert [len(batch["frames"]) for batch in batches] == [6, 6, 4]
    assert np.concatenate([batch["record"] for batch in batches]).tolist() == list(range(16))


class Codes:
    """A source of another kind: codes instead of frames."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"codes": np.full((9, 2, 2), index, np.uint16), "actions": np.arange(9), "level": np.int64(index)}


def test_windows_of_other_fields() -> None:
    batch = next(make_loader(Codes(), batch_size=4, window=3, seed=0, keys=("codes", "actions")))
    assert batch["codes"].shape == (4, 3, 2, 2)
    assert batch["codes"].dtype == np.uint16
    np.testing.assert_array_equal(batch["codes"][:, 0, 0, 0], batch["record"])
    np.testing.assert_array_equal(batch["actions"], batch["start"][:, None] + np.arange(3))


def test_small_splits_fill_large_batches() -> None:
    batch = next(make_loader(Codes(), batch_size=12, window=3, seed=0, keys=("codes",)))
    assert set(Counter(batch["record"].tolist()).values()) == {2, 3}


def test_source_can_be_sent_to_another_process_after_it_was_read(multigrid: Dataset) -> None:
    source = multigrid.split("val")
    record = source[0]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[0]["frames"], record["frames"])
    with pytest.raises(IndexError):
        source[len(source)]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_record_stops_the_loader_with_its_name(workers: int, make_config: MakeConfig) -> None:
    file = next(prepare(make_config(), show_progress=False).directory.glob("*train.array_record*"))
    damage(file)
    loader = make_loader(prepare(make_config()).split("train"), batch_size=4, window=2, seed=0, num_workers=workers)
    with pytest.raises(DataError, match=rf"{file.name}: record \d+ cannot be read") as caught:
        take(loader, 10)
    assert "\n" not in str(caught.value)


def test_what_cannot_work_is_refused(multigrid: Dataset) -> None:
    with pytest.raises(DataError, match="window of 9 frames does not fit into clips of 8"):
        make_loader(multigrid.split("train"), batch_size=4, window=9, seed=0)
    for rows in ((), (0, 3)):
        with pytest.raises(ValueError, match="expected some of 0 to 2"):
            make_loader(multigrid.split("train"), batch_size=3, window=2, seed=0, rows=rows)
