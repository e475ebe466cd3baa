"""Data sets are the same whoever makes them, made once, and never taken for whole when they are not."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

import data_pipelines
from data_pipelines import DataError, Dataset, prepare
from tests.data_pipelines.conftest import MakeConfig, damage, data_config

SPLITS = ("train", "val", "test")


def contents(dataset: Dataset) -> list[dict[str, bytes]]:
    sources = [dataset.split(name) for name in SPLITS]
    return [{k: v.tobytes() for k, v in source[i].items()} for source in sources for i in range(len(source))]


@pytest.mark.parametrize("name", ["multigrid", "procgen"])
def test_same_records_from_one_and_from_two_processes(
    name: str, multigrid: Dataset, procgen: Dataset, make_config: MakeConfig
) -> None:
    size = 32 if name == "multigrid" else 64
    two = prepare(make_config(name=name, frame_size=(size, size), generate_workers=2), show_progress=False)
    one = multigrid if name == "multigrid" else procgen
    assert contents(one) == contents(two)
    np.testing.assert_array_equal(one.median_frame, two.median_frame)


def test_many_record_files_hold_the_same_records_as_one(
    multigrid: Dataset, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipelines.builder.clips_of_a_file", lambda recipe, spec: 3)
    many = prepare(make_config(), show_progress=False)
    assert len(list(many.directory.glob("*train*"))) == 6
    assert contents(many) == contents(multigrid)


def test_another_seed_gives_other_records(multigrid: Dataset, make_config: MakeConfig) -> None:
    other = prepare(make_config(seed=1), show_progress=False)
    assert other.directory.parent.name != multigrid.directory.parent.name
    assert not set(map(str, contents(other))) & set(map(str, contents(multigrid)))


def test_splits_share_no_episode(multigrid: Dataset) -> None:
    episodes = {
        name: {int(r["episode"]) for r in map(multigrid.split(name).__getitem__, range(n))}
        for name, n in zip(SPLITS, (16, 2, 2), strict=True)
    }
    assert [len(multigrid.split(name)) for name in SPLITS] == [16, 2, 2]
    assert len(set.union(*episodes.values())) == 20


def test_found_again_without_generating(make_config: MakeConfig, capfd: pytest.CaptureFixture[str]) -> None:
    first = prepare(make_config())
    assert "Generating" in capfd.readouterr().err
    times = {file: file.stat().st_mtime_ns for file in first.directory.iterdir()}
    again = prepare(make_config(generate_workers=2))
    assert capfd.readouterr().err == ""
    assert times == {file: file.stat().st_mtime_ns for file in again.directory.iterdir()}
    assert "16 train, 2 val, 2 test clips of 8 frames, 32x32" in again.describe()


def test_the_median_frame_is_the_empty_board(multigrid: Dataset) -> None:
    from data_pipelines.multigrid.tiles import compose

    empty = compose(np.zeros((1, 0, 2), np.int16), np.zeros((1, 0), np.int8), 8, 32)[0]
    np.testing.assert_array_equal(multigrid.median_frame, empty)


def _prepare(config: dict[str, object]) -> None:
    prepare(ConfigDict(config), show_progress=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_generation_leaves_no_data_set_and_no_process(workers: int, make_config: MakeConfig) -> None:
    config = make_config(num_frames=400_000, frame_size=(64, 64), generate_workers=workers)
    process = multiprocessing.get_context("spawn").Process(target=_prepare, args=(config.to_dict(),))
    process.start()
    root = Path(config.path)
    deadline = time.monotonic() + 240  # of a machine that is busy
    while not list(root.glob("multigrid/*/incomplete.*/*.array_record*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = _children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    leftovers = list(root.glob("multigrid/*/incomplete.*"))
    assert leftovers, "it was not killed in the middle"
    assert not list(root.glob("multigrid/*/1.0.0"))
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, children))
    # The same folder, a smaller job: what the dead process left is cleared away.
    small = make_config()
    label = leftovers[0].parent
    (label.parent / "grid8-agents4-shared0-32px-160frames-clips8-seed0").mkdir()
    leftovers[0].rename(label.parent / "grid8-agents4-shared0-32px-160frames-clips8-seed0" / leftovers[0].name)
    dataset = prepare(small, show_progress=False)
    assert len(dataset.split("train")) == 16
    assert not list(dataset.directory.parent.glob("incomplete.*"))


def _children(pid: int | None) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_two_processes_at_once_make_one_data_set(multigrid: Dataset, make_config: MakeConfig) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_prepare, args=(make_config().to_dict(),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(prepare(make_config())) == contents(multigrid)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.9])
def test_cut_off_record_file_is_named(kept: float, make_config: MakeConfig) -> None:
    file = next(prepare(make_config(), show_progress=False).directory.glob("*val.array_record*"))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(DataError, match=f"{file.name} is (empty|cut off)") as caught:
        prepare(make_config())
    assert "\n" not in str(caught.value)


def test_missing_record_file_is_named(make_config: MakeConfig) -> None:
    file = next(prepare(make_config(), show_progress=False).directory.glob("*test.array_record*"))
    file.unlink()
    with pytest.raises(DataError, match=f"{file.name} is missing"):
        prepare(make_config())


def test_damaged_record_is_named(make_config: MakeConfig) -> None:
    file = next(prepare(make_config(), show_progress=False).directory.glob("*train.array_record*"))
    damage(file)
    source = prepare(make_config()).split("train")
    with pytest.raises(DataError, match=rf"{file.name}: record \d+ cannot be read"):
        _ = [source[index] for index in range(len(source))]


@pytest.mark.parametrize("lost", ["dataset_info.json", "features.json"])
def test_folder_without_its_description_is_no_data_set(lost: str, make_config: MakeConfig) -> None:
    directory = prepare(make_config(), show_progress=False).directory
    (directory / lost).unlink()
    with pytest.raises(DataError, match="not a whole data set"):
        prepare(make_config())


def test_frames_of_another_size_are_refused(make_config: MakeConfig) -> None:
    directory = prepare(make_config(), show_progress=False).directory
    other = directory.parent.parent / directory.parent.name.replace("32px", "64px")
    directory.parent.rename(other)
    with pytest.raises(
        DataError, match=r"shape of frames is \['8', '32', '32', '3'\], expected \['8', '64', '64', '3'\]"
    ):
        prepare(make_config(frame_size=(64, 64)))


def test_too_few_frames_for_three_splits(make_config: MakeConfig) -> None:
    with pytest.raises(DataError, match="9 clips: expected at least 10"):
        prepare(make_config(num_frames=72))


def test_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"config.data.path: cannot write to .*file"):
        prepare(data_config(tmp_path / "file"))


@pytest.mark.parametrize(("name", "library"), [("multigrid", "multigrid"), ("procgen", "envpool")])
@pytest.mark.parametrize("workers", [1, 2])
def test_missing_library_names_the_extra(name: str, library: str, workers: int, make_config: MakeConfig) -> None:
    config = make_config(name=name, frame_size=(64, 64), generate_workers=workers)
    assert_the_extra_is_named(name, library, config, "data_pipelines.prepare(config)")


def test_data_set_opens_without_its_library_and_a_displaced_clip_names_the_extra(make_config: MakeConfig) -> None:
    config = make_config()
    prepare(config)
    code = "data = data_pipelines.prepare(config); data.displaced(data.split('test')[0])"
    assert_the_extra_is_named("multigrid", "multigrid", config, code)


def assert_the_extra_is_named(name: str, library: str, config: Any, code: str) -> None:
    """In a process of its own, where the library is not there: an import that has failed leaves its traces."""
    code = f"""
import sys
from pathlib import Path
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
if __name__ == "__main__":
    import data_pipelines
    from ml_collections import ConfigDict
    config = ConfigDict({config.to_dict()})
    try:
        {code}
    except data_pipelines.DataError as error:
        print(error)
"""
    script = Path(config.path) / "script.py"
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert f'pip install "flam_jax[{name}]"' in result.stdout, result.stderr
    assert result.stdout.count("\n") == 1


def test_script_that_does_not_guard_its_main_part_is_told_so_and_does_not_hang(make_config: MakeConfig) -> None:
    config = make_config(generate_workers=2)
    script = Path(config.path) / "script.py"
    script.write_text(
        f"import data_pipelines\nfrom ml_collections import ConfigDict\n"
        f"data_pipelines.prepare(ConfigDict({config.to_dict()}))\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        timeout=120,
    )
    assert result.returncode == 1
    assert "a script that calls prepare() needs `if __name__ == '__main__':`" in result.stderr.splitlines()[-1]


def test_importing_the_package_is_light() -> None:
    heavy = "numpy grain tensorflow_datasets tensorflow jax multigrid envpool"
    code = f"import sys, data_pipelines; print([m for m in {heavy.split()!r} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_public_names_are_there() -> None:
    for name in data_pipelines.__all__:
        assert getattr(data_pipelines, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = data_pipelines.nothing


def test_the_folder_holds_the_data_set_and_nothing_else(make_config: MakeConfig, tmp_path: Path) -> None:
    directory = prepare(make_config(), show_progress=False).directory
    assert [entry.name for entry in tmp_path.iterdir()] == ["multigrid"]
    records = [f"multigrid-{name}.array_record-00000-of-00001" for name in SPLITS]
    assert sorted(file.name for file in directory.iterdir()) == sorted(
        [*records, "dataset_info.json", "features.json", "median_frame.npy"]
    )


def test_an_error_of_reading_is_not_told_as_one_of_writing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a builder reads to make records, such as the files of an environment, may be missing too."""
    from data_pipelines.multigrid.builder import Multigrid

    def broken(*arguments: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory", "tiles.png")

    monkeypatch.setattr(Multigrid, "make_unit", broken)
    with pytest.raises(DataError, match=r"^multigrid cannot be made: tiles\.png No such file or directory$"):
        prepare(make_config(), show_progress=False)
    monkeypatch.undo()

    def full(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_pipelines.builder.ArrayRecordWriter", full)
    with pytest.raises(DataError, match=r"^config\.data\.path: cannot write to .*No space left"):
        prepare(make_config(), show_progress=False)
    monkeypatch.undo()
    assert len(prepare(make_config(), show_progress=False).split("train")) == 16
