"""Records that cannot be read are noticed, whatever has happened to their file: they end a run, or are skipped."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import ClipSource, DataError, Dataset, make_loader, prepare
from tests.data_pipelines.conftest import data_config
from tests.data_pipelines.test_loader import assert_same, take

PER_FILE = 4  # records; 16 of the training split lie in four files, 2 of each other split in one


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20_000])


def flip(file: Path) -> None:
    """Two bytes of the second record."""
    content = bytearray(file.read_bytes())
    content[1_000] ^= 0xFF
    content[1_100] ^= 0x01
    file.write_bytes(content)


def remove(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def garble(file: Path) -> None:
    """Everything but the length."""
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))


Damage = Callable[[Path], None]
LOSSES: list[Damage] = [truncate, remove, empty, garble]  # of whole files
# What is done to the training file 1, that is to records 4 to 7, and which of them it costs.
DAMAGES = [(flip, {5}), *((loss, {4, 5, 6, 7}) for loss in LOSSES)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_pipelines.builder.clips_of_a_file", lambda recipe, spec: PER_FILE)
        return prepare(data_config(tmp_path_factory.mktemp("whole")), show_progress=False)


Open = Callable[..., Dataset]


@pytest.fixture
def copy(whole: Dataset, tmp_path: Path) -> Open:
    """Opens a copy of the data set with `on_corrupt` as it is given, after some damage to some of its files."""
    folder = tmp_path / whole.directory.relative_to(whole.directory.parents[2])
    shutil.copytree(whole.directory, folder)

    def open_copy(on_corrupt: str, damage: Damage | None = None, files: str = "*train*-00001-of*") -> Dataset:
        for file in folder.glob(files) if damage else ():
            assert damage is not None
            damage(file)
        return prepare(data_config(tmp_path, on_corrupt=on_corrupt), show_progress=False)

    return open_copy


def frames(source: ClipSource) -> list[np.ndarray]:
    return [source[index]["frames"] for index in range(len(source))]


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_no_changed_byte_gives_another_record(whole: Dataset, copy: Open) -> None:
    """All over a file: in its first bytes and its filling a change means nothing, everywhere else it is noticed."""
    expected = frames(whole.split("val"))
    folder = copy("stop").directory
    (file,) = folder.glob("*val*")
    content = bytearray(file.read_bytes())
    lost, unreadable = [], []
    for place in [*range(0, 1_900, 9), *range(65_500, 65_700, 9), *range(2_000, len(content), 9_973)]:
        before, content[place] = content[place], content[place] ^ (0xFF if place % 2 else 1 << place % 8)
        file.write_bytes(content)
        content[place] = before
        source = ClipSource("val", [(file, 2)], whole.split("val").fields)
        try:
            source.check()
        except DataError as error:
            assert f"{file} is cut off or damaged" in str(error)  # noqa: PT017
            lost.append(place)
            continue
        for index in (0, 1):
            try:
                np.testing.assert_array_equal(source[index]["frames"], expected[index])
            except DataError as error:
                assert f"{file}: record {index} cannot be read" in str(error)  # noqa: PT017
                unreadable.append(place)
    # The records begin at byte 64. After them comes the list of where they are, and in the last block where that is.
    assert unreadable == [place for place in range(0, 1_900, 9) if 64 <= place < min(lost)]
    assert len(unreadable) > 100
    assert {place // 65_536 for place in lost} == {0, 1}


def test_no_cut_off_file_is_taken_for_whole(whole: Dataset, copy: Open) -> None:
    (file,) = copy("stop").directory.glob("*val*")
    content = file.read_bytes()
    for kept in [*range(0, len(content), 3_001), *range(65_530, 65_640, 3), len(content) - 1]:
        file.write_bytes(content[:kept])
        with pytest.raises(DataError, match=f"{file.name} is (empty|cut off)"):
            ClipSource("val", [(file, 2)], whole.split("val").fields).check()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_file_stops_before_any_work_with_its_name_and_its_records(loss: Damage, copy: Open) -> None:
    with pytest.raises(DataError, match="cannot be read") as error:
        copy("stop", loss)
    text = one_line(error)
    assert "multigrid-train.array_record-00001-of-00004 is " in text
    assert ": records 4 to 7 of train cannot be read; " in text
    assert text.endswith("or go on without what is lost by --config.data.on_corrupt=skip")


def test_a_changed_record_stops_when_it_is_read_with_its_file_and_number(copy: Open) -> None:
    loader = make_loader(copy("stop", flip).split("train"), batch_size=4, window=2, seed=0, shuffle=False)
    next(loader)
    with pytest.raises(DataError, match="cannot be read") as error:
        next(loader)
    text = one_line(error)
    assert "multigrid-train.array_record-00001-of-00004: record 1 cannot be read (" in text
    assert text.endswith("or go on without what is lost by --config.data.on_corrupt=skip")
    loader.close()


def test_a_file_that_is_lost_after_the_start_stops_too(copy: Open) -> None:
    dataset = copy("stop")
    source = dataset.split("train")
    for file in dataset.directory.glob("*train*-00001-of*"):
        file.unlink()
    assert source[3]["frames"].shape == (8, 32, 32, 3)
    with pytest.raises(DataError, match=r"-00001-of-00004: record 2 cannot be read \(the file is missing\)"):
        source[6]


@pytest.mark.parametrize(("damage", "bad"), DAMAGES)
def test_skipped_records_change_their_own_windows_and_no_others(
    damage: Damage, bad: set[int], whole: Dataset, copy: Open
) -> None:
    options = dict(batch_size=6, window=3, seed=0)
    expected = take(make_loader(whole.split("train"), **options), 8)
    source = copy("skip", damage).split("train")
    found = take(make_loader(source, **options), 8)
    replaced = 0
    for before, after in zip(expected, found, strict=True):
        assert after["frames"].shape == before["frames"].shape
        np.testing.assert_array_equal(after["start"], before["start"])
        skipped = np.isin(before["record"], list(bad))
        np.testing.assert_array_equal(after["skipped"], np.where(skipped, before["record"], -1))
        np.testing.assert_array_equal(after["record"][~skipped], before["record"][~skipped])
        assert not bad & set(after["record"].tolist())
        for window, record, start in zip(after["frames"], after["record"], after["start"], strict=True):
            clip = whole.split("train")[int(record)]["frames"]
            np.testing.assert_array_equal(window, clip[start : start + 3])
        replaced += skipped.sum()
    assert replaced == 3 * len(bad)  # 8 batches of 6 are three epochs
    assert source.unreadable == bad


def test_skipped_records_are_the_same_on_workers_and_processes_and_after_a_stop(copy: Open) -> None:
    dataset = copy("skip", flip, "*train*-00002-of*")
    options = dict(batch_size=6, window=2, seed=3)
    for file in dataset.directory.glob("*train*-00001-of*"):
        file.unlink()
    source = copy("skip").split("train")
    make = functools.partial(make_loader, copy("skip").split("train"), **options)
    expected = take(make(), 7)
    assert {int(number) for batch in expected for number in batch["skipped"]} == {-1, 4, 5, 6, 7, 9}
    workers = make_loader(source, **options, num_workers=2)
    assert_same(take(workers, 7), expected)
    workers.close()
    assert source.unreadable == {4, 5, 6, 7, 9}  # told by the workers
    shares = [take(make(rows=rows), 7) for rows in ([0, 1, 2], [3, 4, 5])]
    assert_same([{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*shares, strict=True)], expected)
    stopped = make()
    take(stopped, 4)
    resumed = make()
    resumed.set_state(json.loads(json.dumps(stopped.get_state())))
    assert_same(take(resumed, 3), expected[4:])


def test_several_records_stand_in_for_those_of_a_lost_file(copy: Open) -> None:
    source = copy("skip", remove).split("train")
    numbers = {index: source.find(index, ("frames",))[0] for index in range(len(source))}
    assert {index for index, number in numbers.items() if number != index} == {4, 5, 6, 7}
    assert len({numbers[index] for index in (4, 5, 6, 7)}) > 1


def test_what_is_skipped_is_told(copy: Open) -> None:
    dataset = copy("skip", remove)
    name = f"{dataset.directory}/multigrid-train.array_record"
    lost = f"4 records of {name}-00001-of-00004 cannot be read and are skipped: the file is missing"
    assert dataset.describe().splitlines()[1:] == [lost]
    (file,) = dataset.directory.glob("*train*-00003-of*")
    flip(file)
    loader = make_loader(dataset.split("train"), batch_size=4, window=2, seed=0)
    take(loader, 4)
    changed = f"1 record of {name}-00003-of-00004 cannot be read and is skipped: record 1"
    assert dataset.faults() == [lost, changed]
    assert loader.faults([5]) == [lost]
    assert loader.faults([4, 13]) == [changed]  # each once
    loader.close()


def test_a_file_that_is_lost_after_the_start_is_skipped_too(copy: Open) -> None:
    dataset = copy("skip")
    source = dataset.split("train")
    for file in dataset.directory.glob("*train*-00001-of*"):
        file.unlink()
    assert source.find(6, ("frames",))[0] not in (4, 5, 6, 7)
    assert source.unreadable == {4, 5, 6, 7}
    assert dataset.faults()[0].endswith("-00001-of-00004 cannot be read and are skipped: the file is missing")


def test_a_split_without_any_record_is_an_error(copy: Open) -> None:
    with pytest.raises(DataError, match=r"no record of test can be read: .*is missing; delete the folder") as error:
        copy("skip", remove, "*test*")
    one_line(error)


def test_a_split_whose_records_are_all_changed_is_an_error(copy: Open) -> None:
    dataset = copy("skip", flip, "*val*")
    assert dataset.split("val").find(1, ("frames",))[0] == 0
    (file,) = dataset.directory.glob("*val*")
    content = bytearray(file.read_bytes())
    content[300] ^= 0xFF  # of the first record
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"no record of val can be read: .*: record 0 cannot be read") as error:
        make_loader(copy("skip").split("val"), batch_size=2, window=2, seed=0)
    assert "on_corrupt" not in one_line(error)


def test_the_median_frame_is_made_of_what_can_be_read(whole: Dataset, copy: Open) -> None:
    (copy("stop").directory / "median_frame.npy").unlink()
    np.testing.assert_array_equal(copy("skip", flip).median_frame, whole.median_frame)


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00v\x00{'descr'", "other"])
def test_a_damaged_median_frame_is_made_again(content: bytes | str, whole: Dataset, copy: Open) -> None:
    file = copy("stop").directory / "median_frame.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, np.zeros((4, 4, 3), np.uint8))
    np.testing.assert_array_equal(copy("stop").median_frame, whole.median_frame)
    np.testing.assert_array_equal(np.load(file), whole.median_frame)


def test_whole_data_are_the_same_with_either_policy(whole: Dataset, copy: Open) -> None:
    options = dict(batch_size=4, window=2, seed=0)
    dataset = copy("skip")
    batches = take(make_loader(dataset.split("train"), **options), 5)
    assert all((batch.pop("skipped") == -1).all() for batch in batches)
    assert_same(batches, take(make_loader(whole.split("train"), **options), 5))
    assert dataset.faults() == []
