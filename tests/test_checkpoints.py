"""Checkpoints on disk: what damage does, and that nothing good is lost."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from data_pipelines.paths import replacing
from flam_jax.checkpoints import CheckpointError, Checkpoints, find_damage, restore_parameters, write_text
from flam_jax.training.state import TrainState
from flam_jax.training.trainer import train
from tests.training.stand_in import TinyStage, tiny_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The workdir of a run with checkpoints of steps 8 and 12, and its parameters."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, train(TinyStage(), tiny_config(), workdir)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def test_a_whole_checkpoint_is_found_whole(finished: Any) -> None:
    folders = list((finished[0] / "tokenizer" / "checkpoints").glob("*"))
    assert sorted(folder.name for folder in folders) == ["12", "8"]
    for folder in folders:
        assert (folder / "checksums.json").is_file()
        assert find_damage(folder) == ""


@pytest.mark.parametrize("damage", [remove, cut, flip])
def test_damage_to_any_file_that_is_read_is_found_and_named(
    finished: Any, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    whole = finished[0] / "tokenizer" / "checkpoints" / "12"
    names = [file.relative_to(whole) for file in files(whole)]
    # What lies beside the items is Orbax's own notes on them; it restores without.
    items = [name for name in names if len(name.parts) > 1 and name.name != "commit_success.txt"]
    assert len(items) > 15
    for number, name in enumerate(items):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        damage(folder / name)
        assert find_damage(folder).startswith(f"{name.as_posix()} is "), name
    for number, name in enumerate(set(names) - set(items)):
        folder = tmp_path / "notes" / "tokenizer" / "checkpoints" / str(number + 1)
        shutil.copytree(whole, folder)
        damage(folder / name)
        if name.name != "checksums.json":
            assert find_damage(folder) == ""
            with Checkpoints(folder.parents[1], read_only=True) as checkpoints:
                checkpoints.parameters(step=number + 1)


def test_a_checkpoint_without_its_checksums_or_with_others_is_damaged(finished: Any, tmp_path: Path) -> None:
    whole = finished[0] / "tokenizer" / "checkpoints" / "12"
    for number, text in enumerate((None, "", "[1]", "3", "{")):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        remove(folder / "checksums.json")
        if text is not None:
            (folder / "checksums.json").write_text(text)
        assert find_damage(folder) == f"checksums.json {'is missing' if text is None else 'cannot be read'}"


def test_a_link_that_lies_where_a_file_is_made_is_not_followed(tmp_path: Path, monkeypatch: Any) -> None:
    """Not even by who has guessed the name of the unfinished file."""
    victim, file = tmp_path / "victim", tmp_path / "report.html"
    victim.write_text("kept")
    (tmp_path / "report.html.guessed.partial").symlink_to(victim)
    with monkeypatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda _: "guessed")
        with pytest.raises(FileExistsError):
            write_text(file, "new")
    assert victim.read_text() == "kept"
    file.symlink_to(victim)
    write_text(file, "newer")
    assert (victim.read_text(), file.read_text(), file.is_symlink()) == ("kept", "newer", False)


def test_two_that_write_one_file_do_not_meet_and_one_that_fails_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with replacing(file) as first, replacing(file) as second:
        first.write(b"first")
        second.write(b"second")
    assert file.read_bytes() == b"first"  # the one that ended last
    with pytest.raises(TypeError), replacing(file) as third:
        third.write("not bytes")
    assert file.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def largest(folder: Path) -> Path:
    return max(files(folder), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("damage", [remove, cut, flip])
def test_training_goes_on_from_the_last_good_one_and_names_both(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    stage = tmp_path / "tokenizer"
    damage(largest(stage / "checkpoints" / "12"))
    variables = train(TinyStage(), tiny_config(), tmp_path)
    said = capsys.readouterr().out
    assert f"{stage}: checkpoint 12 is damaged: " in said
    assert "set aside. The last good one is of step 8" in said
    assert "resumes from step 8" in said
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, finished[1]))
    assert sorted(path.name for path in (stage / "checkpoints").iterdir()) == ["12", "8"]
    assert [path.name for path in (stage / "damaged").iterdir()] == ["12"]
    metrics, straight = (Path(folder) / "metrics.jsonl" for folder in (tmp_path, finished[0]))
    steps = [[json.loads(line)["step"] for line in path.read_text().splitlines()] for path in (metrics, straight)]
    assert steps[0] == steps[1]


def test_who_only_reads_is_told_which_one_is_good_and_nothing_is_moved(finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    flip(largest(tmp_path / "tokenizer" / "checkpoints" / "12"))
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoint 12 is damaged: .* last good one is of step 8") as caught:
        restore_parameters(tmp_path / "tokenizer")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before


def test_when_all_are_damaged_the_run_stops_and_nothing_is_moved(finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    for step in ("8", "12"):
        cut(largest(tmp_path / "tokenizer" / "checkpoints" / step))
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoint 12 is damaged: .*; checkpoint 8 is damaged: .* no other"):
        train(TinyStage(), tiny_config(), tmp_path)
    assert files(tmp_path) == before


def test_restoring_from_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        restore_parameters(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        restore_parameters(tmp_path / "tokenizer")


def test_a_discriminator_stays_behind(tmp_path: Path) -> None:
    params = {"encoder": {"bias": np.ones(3)}, "discriminator": {"bias": np.ones(2)}}
    with Checkpoints(tmp_path / "tokenizer") as checkpoints:
        checkpoints.save(1, TrainState(step=np.int32(1), params=params, opt_state=params), {"config": {}})
    assert set(restore_parameters(tmp_path / "tokenizer")) == {"encoder"}


def small_disk(folder: Path, megabytes: int) -> list[str]:
    """The beginning of a command line that runs a program with a file system of this size mounted at `folder`."""
    mount = f'mount -t tmpfs -o size={megabytes}m none "{folder}" && exec "$@"'
    command = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "sh", "-c", mount]
    return [*command, "sh"]


def test_a_full_disk_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    disk = small_disk(tmp_path, 64)
    try:
        subprocess.run([*disk, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system does not let its user mount a file system")
    script = Path(__file__).with_name("run_full_disk.py")
    done = subprocess.run(
        [*disk, sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "could not be written" in found["error"]
    assert "\n" not in found["error"]
    assert found["good"] == 4  # the last before the disk was full
    assert found["then"] == found["good"]  # and that is what the next start goes on from
    assert found["equal"]  # to the parameters of a run that has never seen a full disk
