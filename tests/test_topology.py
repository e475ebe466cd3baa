"""Plans for TPUs that are not there: what is read from a compiled program, and real programs for small slices."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from flam_jax import topology
from flam_jax.config import ConfigError, load_config
from flam_jax.topology import DoesNotFit
from tests.readme import QUICK_TO_PLAN, QUICK_WORDS

ROOT = Path(__file__).parents[1]
needs_compiler = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no TPU compiler (tpu-plan)")


@pytest.mark.parametrize("limit", [1, 2, 3, 37, 64, 500])
@pytest.mark.parametrize("extra", [-200, 0, 70, 5000])  # how far the compiler's own limit is from the chip's memory
def test_the_largest_batch_that_fits_is_found_to_an_eighth(
    limit: int, extra: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    room = 300 + 20 * limit + extra

    def plan(config: Any, name: str, *, stage: str, per_chip: int) -> topology.Plan:
        asked.append(per_chip)
        memory = 300 + 10 * per_chip + (50 if per_chip > 20 else 0)
        if per_chip > 2 * limit:
            raise DoesNotFit("no")
        return topology.Plan(name, 1, {}, per_chip, per_chip, memory, room, 1.0, 1.0, [], 0.0, None, 0.0)

    monkeypatch.setattr(topology, "plan", plan)
    config = load_config(ROOT / "experiments/multigrid.py", "debug", {"dynamics.training.accumulate": 2})
    found = topology.largest_fit(config, "v5e:2x2", stage="dynamics")
    assert found.per_chip % 2 == 0  # a whole number of parts
    assert 2 * limit - max(2, limit // 4) <= found.per_chip <= 2 * limit
    assert len(asked) == len(set(asked)) < (8 if extra == 0 else 16)
    monkeypatch.setattr(topology, "plan", lambda *_, **__: plan(None, "", stage="", per_chip=10_000))
    with pytest.raises(DoesNotFit):
        topology.largest_fit(config, "v5e:2x2", stage="dynamics")


def test_names_of_slices() -> None:
    assert topology.split_name("v5e:16x16") == ("v5e", (16, 16))
    assert topology.split_name("v5p:4x4x4") == ("v5p", (4, 4, 4))
    for name in ("v5e", "v5e:4", "v5e:4x4x4", "v4:4x4", "v9:4x4", "v5e:0x4", "v5e:4x4 ", ""):
        with pytest.raises(ConfigError, match="--topology="):
            topology.split_name(name)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--topology=v5e:4x4"], "--config is missing"),
        (["--config=experiments/nuplan.py"], "--topology is missing"),
        (["--config=experiments/nuplan.py", "--topology=v5e:four"], "--topology='v5e:four': expected"),
        (["--config=experiments/nuplan.py", "--topology=v5e:4x4", "--stage=all"], "--stage='all': expected"),
        (["--config=experiments/nuplan.py", "--topology=v5e:4x4", "--per_chip=0"], "--per_chip='0': expected"),
        (["--config=experiments/none.py", "--topology=v5e:4x4"], "no such file"),
    ],
)
def test_wrong_command_lines_are_one_line(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert topology.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


@needs_compiler
def test_a_step_of_the_tokenizer_is_planned_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    file = tmp_path / "plan.json"
    words = ["--config=experiments/nuplan.py:debug", "--topology=v5e:2x2", "--topology=v4:2x2x1", "--stage=tokenizer"]
    assert topology.main([*words, *QUICK_WORDS, "--per_chip=2", "--parameters", f"--json={file}"]) == 0
    output = capsys.readouterr().out
    for text in ("encoder/Dense_0/kernel", "v5e:2x2: 4 chips (data 4", "estimate, weak scaling against one chip"):
        assert text in output
    first, second = json.loads(file.read_text())
    assert (first["topology"], first["chips"], first["batch"]) == ("v5e:2x2", 4, 8)
    assert second["topology"] == "v4:2x2x1"
    for found in (first, second):
        assert 0 < found["memory"] < found["memory_limit"]
        assert found["flops"] > 1e6
        assert found["seconds"] > 0
        assert 0.3 < found["efficiency"] <= 1.1  # of a step that takes no time
        (reduce,) = (each for each in found["collectives"] if each["kind"] == "all-reduce")
        assert reduce["bytes"] > 4 * 3_000  # the gradient of every parameter, at least


@needs_compiler
def test_a_step_that_does_not_fit_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(ROOT)
    words = ["--config=experiments/nuplan.py:debug", "--topology=v5e:2x2", "--stage=tokenizer", "--per_chip=60000"]
    assert topology.main([*words, *QUICK_WORDS]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "with 60000 examples a chip the tokenizer step does not fit into a chip's memory" in line
    assert "try --fit" in line


@needs_compiler
@pytest.mark.long
def test_factors_are_spread_over_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chips that share an example hold about half of its activations each, and exchange slots."""
    monkeypatch.chdir(ROOT)
    # Ten frames and two passes: the shared part of fewer activations is less of the whole.
    changes = QUICK_TO_PLAN | {"mesh.data": 2, "mesh.factor": 2}
    changes |= {"dynamics.training.window": 10, "dynamics.prediction_steps": 2}
    config = load_config("experiments/nuplan.py", "debug", changes)
    shared = topology.plan(config, "v5e:2x2", per_chip=4)
    kinds = {each.kind for each in shared.collectives}
    assert "all-reduce" in kinds
    assert kinds & {"all-gather", "all-to-all"}
    alone = topology.plan(config, "v5e:2x2", per_chip=4, chips=1)
    assert shared.memory < 0.6 * alone.memory
