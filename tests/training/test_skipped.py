"""Records that cannot be read are skipped, and counted, by all that read: training, validation, codes, evaluation."""

import copy
import json
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import Dataset, prepare
from flam_jax.build import build_tokenizer
from flam_jax.config import validate
from flam_jax.evaluation import runner
from flam_jax.training.skipped import Skipped
from flam_jax.training.stages.dynamics import DynamicsStage
from flam_jax.training.stages.tokenizer import TokenizerStage
from flam_jax.training.validation import validation_batches
from tests.tiny import tiny_config, tiny_model
from tests.training.stand_in import TinyStage


def make_config(path: Path, **data: Any) -> Any:
    config = tiny_config()
    with config.unlocked():
        config.data.update(path=str(path), num_frames=300, generate_workers=1, **data)
        for stage in ("tokenizer", "dynamics"):
            config[stage].training.batch_size = 4
    return validate(config)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Dataset]:
    """A configuration that skips, and its data, with one record of each split changed."""
    path = tmp_path_factory.mktemp("damaged")
    whole = prepare(make_config(path).data, show_progress=False)
    for file in whole.directory.glob("*.array_record*"):
        content = bytearray(file.read_bytes())
        content[300] ^= 0xFF  # of the first record
        file.write_bytes(content)
    config = make_config(path, on_corrupt="skip")
    return config, prepare(config.data)


def dynamics_stage(config: Any, dataset: Dataset, cache_codes: bool) -> DynamicsStage:
    changed = copy.deepcopy(config)
    changed.dynamics.cache_codes = cache_codes
    frame = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(build_tokenizer(config).init, jax.eval_shape(lambda: jax.random.key(0)), frame)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes["params"])
    return DynamicsStage(changed, dataset, {"tokenizer": params})


def test_stages_skip_in_frames_and_in_codes_alike(damaged: tuple[Any, Dataset]) -> None:
    config, dataset = damaged
    stages = [TokenizerStage(config, dataset, {}), *(dynamics_stage(config, dataset, on) for on in (False, True))]
    met = []
    for stage in stages:
        loader = stage.make_loader()
        batches = [next(loader) for _ in range(6)]  # an epoch
        met.append([{name: batch[name].tolist() for name in ("record", "start", "skipped")} for batch in batches])
        assert {number for batch in met[-1] for number in batch["skipped"]} == {-1, 0}
        assert 0 not in {number for batch in met[-1] for number in batch["record"]}
        assert "1 record of" in loader.faults([0])[0]
        loader.close()
    assert met[1] == met[2]


def test_validation_takes_other_windows_for_those_that_cannot_be_read(damaged: tuple[Any, Dataset]) -> None:
    source = damaged[1].split("val")
    batches = validation_batches(source, 2, window=4)
    assert {batch["frames"].shape for batch in batches} == {(2, 4, 16, 16, 3)}
    assert source.unreadable == {0}


def test_evaluation_says_how_many_clips_it_skipped(damaged: tuple[Any, Dataset]) -> None:
    config, dataset = damaged
    result, _ = runner.measure(config, tiny_model(), dataset, ["rollout"])
    assert result["rollout"]["clips"] == 3
    assert result["rollout"]["skipped_clips"] == 1
    assert np.isfinite(result["rollout"]["psnr"]).all()


# What stood in the batches of two processes: the records that others stand in for, -1 where there is nothing to skip.
ROWS = [([-1, 7], [-1, -1]), ([-1, -1], [3, -1]), ([7, 3], [-1, -1]), ([-1, -1], [-1, 9])]


class Teller:
    """A loader that tells of every record on a line of its own."""

    def faults(self, records: list[int]) -> list[str]:
        return [str(record) for record in records]


def whole_rows(step: int) -> dict[str, np.ndarray]:
    return {"skipped": np.concatenate(ROWS[step])}


def test_records_are_counted_once_and_windows_each_time() -> None:
    skipped = Skipped(range(4))
    assert skipped.values() == {}
    seen = []
    for step in range(4):
        skipped.add(whole_rows(step))
        seen.append((skipped.faults(Teller()), *skipped.values().values()))
    assert seen == [(["7"], 1, 1), (["3"], 2, 2), ([], 2, 4), (["9"], 3, 5)]
    assert list(skipped.values()) == ["skipped_records", "skipped_windows"]
    assert skipped.summary() == "skipped 5 windows of 3 records that cannot be read; others stood in for them"


def test_nothing_is_counted_where_records_are_not_skipped() -> None:
    skipped = Skipped(range(3))
    skipped.add({"record": np.arange(3)})
    assert (skipped.values(), skipped.state(), skipped.summary(), skipped.faults(Teller())) == ({}, {}, "", [])


def test_counts_go_on_after_a_stop() -> None:
    before = Skipped(range(4))
    before.add(whole_rows(0))
    before.add(whole_rows(1))
    after = Skipped(range(4), json.loads(json.dumps(before.state())))
    assert after.faults(Teller()) == []
    for skipped in (before, after):
        skipped.add(whole_rows(2))
        skipped.add(whole_rows(3))
    assert after.state() == before.state() == {"windows": 5, "records": [3, 7, 9]}
    assert after.faults(Teller()) == ["9"]


@pytest.mark.parametrize("shared", [False, True], ids=["rows of their own", "the same rows"])
def test_counts_are_of_all_processes(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Two threads play the processes, and exchange what they hand over. What both have read counts once."""
    handed: list[Any] = [None, None]
    found: list[Any] = [None, None]
    both_there = threading.Barrier(2, timeout=20)

    def exchange(rows: np.ndarray) -> np.ndarray:
        handed[int(threading.current_thread().name)] = rows
        both_there.wait()
        together = np.stack(handed)
        both_there.wait()
        return together

    def process(index: int) -> None:
        skipped = Skipped(range(4) if shared else range(2 * index, 2 * index + 2))
        values = []
        for step, rows in enumerate(ROWS):
            skipped.add(whole_rows(step) if shared else {"skipped": np.array(rows[index])})
            if step % 2:  # a step that is logged
                values.append((skipped.faults(Teller()), skipped.values()))
        found[index] = (values, skipped.state())

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", exchange)
    threads = [threading.Thread(target=process, args=(index,), name=str(index)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = [
        (["3", "7"], {"skipped_records": 2, "skipped_windows": 2}),
        (["9"], {"skipped_records": 3, "skipped_windows": 5}),
    ]
    assert found[0] == found[1] == (values, {"windows": 5, "records": [3, 7, 9]})


def run_of_trainer(config: Any, dataset: Dataset, workdir: Path, steps: int) -> list[dict[str, Any]]:
    """A stand-in model on the real batches; the values of its training lines."""
    from flam_jax.metrics_file import read_metrics
    from flam_jax.training.trainer import train

    config = copy.deepcopy(config)
    config.tokenizer.training.update(num_steps=steps, log_every=2, checkpoint_every=4)
    train(TinyStage(TokenizerStage(config, dataset, {}).make_loader), config, workdir)
    return [entry["values"] for entry in read_metrics(workdir, "tokenizer") if "speed" in entry]


def test_training_reports_what_it_skips_also_after_a_stop(
    damaged: tuple[Any, Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = run_of_trainer(*damaged, tmp_path / "whole", 12)
    counts = [(values["skipped_records"], values["skipped_windows"]) for values in logged]
    assert counts == sorted(counts)
    assert counts[-1] == (1, 2)  # twelve steps of 4 are two epochs of 24 records
    lines = capsys.readouterr().out.splitlines()
    assert (
        sum("1 record of" in line and line.endswith("cannot be read and is skipped: record 0") for line in lines) == 1
    )
    assert lines[-2] == "tokenizer skipped 2 windows of 1 record that cannot be read; others stood in for them"
    run_of_trainer(*damaged, tmp_path / "stopped", 8)
    again = run_of_trainer(*damaged, tmp_path / "stopped", 12)
    assert [(values["skipped_records"], values["skipped_windows"]) for values in again] == counts
