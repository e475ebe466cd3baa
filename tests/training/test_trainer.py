"""The loop: resume, preemption, non-finite values, checkpoints, metrics; with a tiny stage."""

import functools
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.checkpoints import CheckpointError, Checkpoints, finished_step, restore_parameters
from flam_jax.metrics_file import read_metrics
from flam_jax.training.signals import Preempted, StopRequest
from flam_jax.training.trainer import Job, NonFiniteError, train, train_together
from tests.training.stand_in import RestingStage, TinyLoader, TinyStage, tiny_config


def same(first: Any, second: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(np.asarray(a), np.asarray(b))), first, second))


def values(workdir: Path, stage: str = "tokenizer") -> list[tuple[int, dict[str, float]]]:
    return [(entry["step"], entry["values"]) for entry in read_metrics(workdir, stage)]


class StoppingLoader(TinyLoader):
    """Acts at one batch: raises, or sends this process a signal."""

    def __init__(self, at: int, number: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.at, self.number = at, number

    def __next__(self) -> dict[str, np.ndarray]:
        if self.position + 1 == self.at:
            if self.number is None:
                raise RuntimeError("killed")
            os.kill(os.getpid(), self.number)
        return super().__next__()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    workdir = tmp_path_factory.mktemp("straight")
    config = tiny_config(schedule="cosine", warmup_steps=3)
    return workdir, train(TinyStage(), config, workdir)


@pytest.mark.parametrize("killed_at", [2, 7])
def test_a_killed_run_ends_bit_identical(straight: Any, tmp_path: Path, killed_at: int) -> None:
    config = tiny_config(schedule="cosine", warmup_steps=3)
    with pytest.raises(RuntimeError, match="killed"):
        train(TinyStage(lambda: StoppingLoader(killed_at)), config, tmp_path)
    variables = train(TinyStage(), config, tmp_path)
    assert same(variables, straight[1])
    assert values(tmp_path) == values(straight[0])
    with Checkpoints(tmp_path / "tokenizer") as here, Checkpoints(straight[0] / "tokenizer") as there:
        for name in ("loader", "step", "config"):
            assert here.meta()[name] == there.meta()[name]


@pytest.mark.parametrize("killed_at", [6, 11])
def test_a_run_whose_parts_are_trained_one_after_the_other_ends_bit_identical_too(
    tmp_path: Path, killed_at: int
) -> None:
    """Killed while the first part is trained, and while the second one is; alone and with another seed."""
    first, second = seed_jobs(tmp_path, (0, 1))
    straight = train(RestingStage(), first.config, tmp_path / "straight")
    with pytest.raises(RuntimeError, match="killed"):
        train(RestingStage(lambda: StoppingLoader(killed_at)), first.config, tmp_path / "killed")
    assert same(train(RestingStage(), first.config, tmp_path / "killed"), straight)
    assert values(tmp_path / "killed") == values(tmp_path / "straight")
    jobs = [Job(RestingStage(job.stage.make_loader), job.config, job.workdir) for job in (first, second)]
    assert close(train_together(jobs)[0], straight)


@pytest.fixture
def with_a_terminal() -> Iterator[None]:
    """SIGHUP as it is where the tests are not started under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("with_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_the_same_call_goes_on(straight: Any, tmp_path: Path, number: int) -> None:
    config = tiny_config(schedule="cosine", warmup_steps=3)
    before = signal.getsignal(number)
    with pytest.raises(Preempted, match="step 5"):
        train(TinyStage(lambda: StoppingLoader(6, number)), config, tmp_path)
    assert signal.getsignal(number) is before
    with Checkpoints(tmp_path / "tokenizer") as checkpoints:
        assert checkpoints.latest_step() == 5
    stage = TinyStage()
    assert same(train(stage, config, tmp_path), straight[1])
    assert values(tmp_path) == values(straight[0])
    assert stage.evaluated == [6, 12]


@pytest.mark.usefixtures("with_a_terminal")
def test_a_terminal_that_hangs_up_twice_asks_once_and_nohup_is_left_alone() -> None:
    with StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.before(1)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.before(1)
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_a_signal_during_the_last_steps_ends_before_the_next_stage(tmp_path: Path) -> None:
    class Stopped(TinyStage):
        def evaluate(self, variables: Any, step: int, progress: float) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return {}, {}

    with pytest.raises(Preempted, match="step 12"):
        train(Stopped(), tiny_config(eval_every=12), tmp_path)
    assert finished_step(tmp_path / "tokenizer") == 12


def test_trains_outside_the_main_thread(tmp_path: Path) -> None:
    results: list[Any] = []
    config = tiny_config(num_steps=2)
    thread = threading.Thread(target=lambda: results.append(train(TinyStage(), config, tmp_path)))
    thread.start()
    thread.join()
    assert results


def test_a_finished_stage_is_returned_without_a_loader(straight: Any) -> None:
    workdir, variables = straight
    config = tiny_config(schedule="cosine", warmup_steps=3)

    def no_loader() -> TinyLoader:
        raise AssertionError

    before = (workdir / "metrics.jsonl").read_text()
    assert same(train(TinyStage(no_loader), config, workdir), variables)
    assert (workdir / "metrics.jsonl").read_text() == before


def test_the_mark_is_renewed_when_it_was_lost(tmp_path: Path) -> None:
    train(TinyStage(), tiny_config(num_steps=2), tmp_path)
    (tmp_path / "tokenizer" / "finished.json").unlink()
    train(TinyStage(), tiny_config(num_steps=2), tmp_path)
    assert finished_step(tmp_path / "tokenizer") == 2


def test_more_steps_go_on_from_a_finished_stage(tmp_path: Path) -> None:
    train(TinyStage(), tiny_config(num_steps=4), tmp_path)
    train(TinyStage(), tiny_config(num_steps=6), tmp_path)
    assert finished_step(tmp_path / "tokenizer") == 6
    assert [step for step, _ in values(tmp_path)] == [2, 4, 4, 6, 6]


def test_the_step_is_traced_once(tmp_path: Path) -> None:
    stage = TinyStage()
    train(stage, tiny_config(), tmp_path)
    assert stage.traces == 1


def test_every_checkpoint_holds_the_values_of_its_step(tmp_path: Path) -> None:
    # A step that runs while a checkpoint is written must not reach into it through donated buffers.
    config = tiny_config(checkpoint_every=1, checkpoints_kept=12)
    train(TinyStage(width=512), config, tmp_path)
    short = tmp_path / "short"
    # Also a run of 12 steps, for the noise depends on the share of training done; it ends before step 6 is under way.
    with pytest.raises(Preempted, match="step 5"):
        train(TinyStage(lambda: StoppingLoader(6, signal.SIGTERM), width=512), tiny_config(), short)
    with Checkpoints(tmp_path / "tokenizer") as there, Checkpoints(short / "tokenizer") as here:
        assert same(here.parameters(step=5), there.parameters(step=5))
        assert not same(there.parameters(step=5), there.parameters(step=6))


def test_a_value_that_is_not_finite_stops_with_step_metric_and_records(tmp_path: Path) -> None:
    config = tiny_config(num_steps=50, log_every=1000)
    with pytest.raises(NonFiniteError) as caught:
        train(TinyStage(lambda: TinyLoader(bad_step=10)), config, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "loss, grad_norm, param_norm not finite at step 10" in message
    assert "record [36, 37, 38, 39]" in message
    assert "last checkpoint is of step 8" in message
    copy = tmp_path / "tokenizer" / "not_finite_00000010.npz"
    assert f"a copy of it is in {copy}" in message
    with np.load(copy) as saved:
        assert saved["record"].tolist() == [36, 37, 38, 39]
        assert saved["frames"][1, 0, 0, 0, 0] == 255
        assert (saved["step"], saved["seed"]) == (10, 0)
    params = restore_parameters(tmp_path / "tokenizer")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_an_update_that_is_not_finite_can_be_skipped_and_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(on_nonfinite="skip", log_every=1)
    bad = functools.partial(TinyLoader, bad_step=7)
    train(TinyStage(bad), config, tmp_path / "skipped")
    said = capsys.readouterr().out
    assert "update skipped: loss, grad_norm, param_norm not finite at step 7; batch: record [24, 25, 26, 27]" in said
    assert "finished: 12 steps" in said
    assert ", 1 updates skipped" in said
    with Checkpoints(tmp_path / "skipped" / "tokenizer") as checkpoints:
        assert checkpoints.meta()["skipped_updates"] == 1
    counts = [entry["skipped_updates"] for _, entry in values(tmp_path / "skipped") if "loss" in entry]
    assert counts == [0] * 6 + [1] * 6
    # Killed after the skipped update, it ends the same, the count too.
    with pytest.raises(RuntimeError, match="killed"):
        train(TinyStage(lambda: StoppingLoader(11, bad_step=7)), config, tmp_path / "killed")
    variables = train(TinyStage(bad), config, tmp_path / "killed")
    assert same(variables["params"], restore_parameters(tmp_path / "skipped" / "tokenizer"))
    assert values(tmp_path / "killed")[-1] == values(tmp_path / "skipped")[-1]
    losses = [entry["loss"] for _, entry in values(tmp_path / "killed") if "loss" in entry]
    assert [number for number, loss in enumerate(losses) if loss is None] == [6]


def test_the_parameters_of_a_skipped_update_are_those_before_it(tmp_path: Path) -> None:
    config = tiny_config(on_nonfinite="skip", checkpoint_every=1, checkpoints_kept=12)
    train(TinyStage(lambda: TinyLoader(bad_step=7)), config, tmp_path)
    with Checkpoints(tmp_path / "tokenizer") as checkpoints:
        before, skipped, after = (checkpoints.parameters(step=step) for step in (6, 7, 8))
    assert same(before, skipped)
    assert not same(skipped, after)


def test_when_every_update_is_skipped_the_run_stops(tmp_path: Path) -> None:
    class Broken(TinyStage):
        def loss(self, params: Any, frozen: Any, batch: Any, key: Any, progress: Any) -> Any:
            loss, metrics = super().loss(params, frozen, batch, key, progress)
            return loss * float("nan"), metrics

    config = tiny_config(num_steps=300, on_nonfinite="skip", eval_every=300, checkpoint_every=300)
    with pytest.raises(NonFiniteError, match=r"100 updates in a row skipped; .* not finite at step 100"):
        train(Broken(), config, tmp_path)


def test_a_run_whose_last_checkpoint_is_gone_says_so_and_goes_on(
    straight: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(schedule="cosine", warmup_steps=3)
    train(TinyStage(), config, tmp_path)
    shutil.rmtree(tmp_path / "tokenizer" / "checkpoints" / "12")
    capsys.readouterr()
    assert same(train(TinyStage(), config, tmp_path), straight[1])
    assert "was done up to step 12, but its checkpoint is gone; resumes from step 8" in capsys.readouterr().out
    assert values(tmp_path) == values(straight[0])


def test_a_bad_step_before_a_checkpoint_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="step 8"):
        train(TinyStage(lambda: TinyLoader(bad_step=8)), tiny_config(num_steps=50), tmp_path)
    with Checkpoints(tmp_path / "tokenizer") as checkpoints:
        assert checkpoints.latest_step() == 4


def test_without_logging_there_are_still_checkpoints(tmp_path: Path) -> None:
    config = tiny_config(log_every=1000, eval_every=1000, checkpoints_kept=2)
    train(TinyStage(), config, tmp_path)
    with Checkpoints(tmp_path / "tokenizer") as checkpoints:
        assert checkpoints.latest_step() == 12
        with pytest.raises(CheckpointError, match="only 8, 12"):
            checkpoints.meta(4)


def test_another_configuration_is_refused_with_the_fields(tmp_path: Path) -> None:
    train(TinyStage(), tiny_config(num_steps=2), tmp_path)
    config = tiny_config(num_steps=4, learning_rate=0.5, log_every=7)
    config.tokenizer.channels = 16
    with pytest.raises(CheckpointError) as caught:
        train(TinyStage(), config, tmp_path)
    message = str(caught.value)
    assert "config.tokenizer.channels was 128, now 16" in message
    assert "config.tokenizer.training.learning_rate was 0.01, now 0.5" in message
    assert "log_every" not in message
    assert "num_steps" not in message
    with pytest.raises(CheckpointError, match="num_steps was 2, now 1"):
        train(TinyStage(), tiny_config(num_steps=1), tmp_path)


def test_the_folder_has_what_it_promises(straight: Any) -> None:
    workdir = straight[0]
    pictures = sorted(path.name for path in (workdir / "tokenizer" / "pictures").iterdir())
    assert pictures == ["step_00000006_gray.png", "step_00000012_gray.png"]
    assert list((workdir / "tensorboard" / "tokenizer").glob("events.*"))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train_lines = [line for line in lines if "speed" in line]
    assert [line["step"] for line in train_lines] == [2, 4, 6, 8, 10, 12]
    assert set(train_lines[0]["values"]) == {"loss", "grad_norm", "param_norm", "learning_rate", "error", "progress"}
    assert [line["step"] for line in lines if "validation/norm" in line["values"]] == [6, 12]


def test_warnings_are_shown_once_there_is_something_to_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Warning(TinyStage):
        def warnings(self, values: Any) -> list[str]:
            return ["it has collapsed: feed it"] if "loss" in values else []

    train(Warning(), tiny_config(log_every=1, eval_every=100), tmp_path)
    shown = [line for line in capsys.readouterr().out.splitlines() if "collapsed" in line]
    assert shown[0] == "tokenizer warning at step 3: it has collapsed: feed it"
    assert len(shown) == 10


def test_a_stage_reads_what_it_froze(tmp_path: Path) -> None:
    class Reading(TinyStage):
        def loss(self, params: Any, frozen: Any, batch: Any, key: Any, progress: Any) -> Any:
            loss, _ = super().loss(params, frozen, batch, key, progress)
            return loss, {"offset": frozen["offset"]}

    train(Reading(frozen={"offset": np.float32(3.0)}), tiny_config(num_steps=2), tmp_path)
    assert values(tmp_path)[0][1]["offset"] == 3.0


def test_a_copy_to_the_devices_that_nobody_asked_for_stops_the_run(tmp_path: Path) -> None:
    class Copying(TinyLoader):
        def __next__(self) -> dict[str, np.ndarray]:
            return {"frames": np.asarray(jnp.asarray(super().__next__()["frames"]) + 1)}

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(TinyStage(Copying), tiny_config(), tmp_path)


def seed_jobs(folder: Path, seeds: tuple[int, ...], make_loader: Any = TinyLoader, **training: Any) -> list[Job]:
    jobs = []
    for seed in seeds:
        config = tiny_config(schedule="cosine", warmup_steps=3, **training)
        config.seed = seed
        stage = TinyStage(functools.partial(make_loader, seed=seed))
        jobs.append(Job(stage, config, folder / f"seed{seed}"))
    return jobs


def close(first: Any, second: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool(np.allclose(a, b, rtol=1e-4, atol=1e-6)), first, second))


def test_a_run_begins_with_the_parameters_of_another_and_then_goes_its_own_way(
    straight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone and with another seed; a start after a kill goes on from its own checkpoint."""
    origin = straight[0] / "tokenizer"
    still = tiny_config(num_steps=1, learning_rate=1e-12, warmup_steps=0)
    job = Job(TinyStage(), still, tmp_path / "still", origin)
    assert close(train_together([job])[0], straight[1])
    jobs = [Job(one.stage, one.config, one.workdir, origin) for one in seed_jobs(tmp_path, (0, 1))]
    first, second = train_together(jobs)
    assert not close(first, straight[1])
    assert not close(first, second)
    monkeypatch.setattr("flam_jax.training.run.restore_parameters", None)  # not read again
    assert same(train_together(jobs)[0], first)


def test_runs_that_are_trained_together_are_what_they_are_alone(tmp_path: Path) -> None:
    together = train_together(seed_jobs(tmp_path / "together", (0, 1, 2)))
    assert not close(together[0], together[1])
    for seed, variables in enumerate(together):
        (alone,) = train_together(seed_jobs(tmp_path / "alone", (seed,)))
        assert close(variables, alone)
        here, there = (values(tmp_path / name / f"seed{seed}") for name in ("together", "alone"))
        assert [step for step, _ in here] == [step for step, _ in there]
        assert close([entry for _, entry in here], [entry for _, entry in there])
        assert finished_step(tmp_path / "together" / f"seed{seed}" / "tokenizer") == 12
    # A step of three runs is traced once.
    jobs = seed_jobs(tmp_path / "traced", (0, 1, 2))
    train_together(jobs)
    assert jobs[0].stage.traces == 1  # type: ignore[attr-defined]
    assert jobs[1].stage.traces == 0  # type: ignore[attr-defined]


def test_runs_that_were_trained_together_go_on_alone_and_the_other_way_round(tmp_path: Path) -> None:
    straight = train_together(seed_jobs(tmp_path / "straight", (0, 1)))

    def killed_in_the_second(seed: int) -> TinyLoader:
        return StoppingLoader(10, seed=seed) if seed == 1 else TinyLoader(seed=seed)

    with pytest.raises(RuntimeError, match="killed"):
        train_together(seed_jobs(tmp_path / "cut", (0, 1), killed_in_the_second))
    (first,) = train_together(seed_jobs(tmp_path / "cut", (0,)))  # from step 8, alone
    both = train_together(seed_jobs(tmp_path / "cut", (0, 1)))  # one is done, the other resumes from step 8
    assert close(first, straight[0])
    assert close(both, straight)


def test_a_signal_saves_all_runs_that_are_trained_together(tmp_path: Path) -> None:
    def asked(seed: int) -> TinyLoader:
        return StoppingLoader(6, signal.SIGTERM, seed=seed) if seed == 0 else TinyLoader(seed=seed)

    with pytest.raises(Preempted, match="step 5"):
        train_together(seed_jobs(tmp_path, (0, 1), asked))
    for seed in (0, 1):
        with Checkpoints(tmp_path / f"seed{seed}" / "tokenizer") as checkpoints:
            assert checkpoints.latest_step() == 5


def test_runs_that_differ_in_more_than_the_seed_are_not_trained_together(tmp_path: Path) -> None:
    jobs = seed_jobs(tmp_path, (0,)) + seed_jobs(tmp_path, (1,), num_steps=14)
    with pytest.raises(ValueError, match=r"not in \['tokenizer.training.num_steps'\]"):
        train_together(jobs)
    assert not list(tmp_path.iterdir())
