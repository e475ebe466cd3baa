"""Surroundings in which a run cannot end well are refused in one line, before data or compilation."""

import pytest

from flam_jax import main as launcher
from flam_jax.surroundings import find_problems
from tests.bad_input.mistakes import DEBUG


@pytest.mark.parametrize("name", ["JAX_ENABLE_X64", "JAX_DISABLE_JIT"])
@pytest.mark.parametrize(
    ("value", "refused"), [("1", True), ("True", True), ("0", False), ("", False), ("false", False)]
)
def test_switches_of_jax_that_cannot_work_are_named(name: str, value: str, refused: bool) -> None:
    problems = find_problems({name: value})
    assert len(problems) == refused
    assert all(problem.startswith(f"{name}={value}: expected unset") for problem in problems)
    assert find_problems({}) == []


def test_the_launcher_refuses_them_before_any_work(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    assert launcher.main([DEBUG, f"--workdir={tmp_path / 'run'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flam_jax: JAX_ENABLE_X64=1: expected unset")
    assert not (tmp_path / "run").exists()


def test_a_platform_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys) -> None:
    import jax

    def fail() -> None:
        raise RuntimeError("Unable to initialize backend 'gpu'\n and more")

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "gpu")
    assert launcher.main([DEBUG, f"--workdir={tmp_path / 'run'}"]) == 1
    assert capsys.readouterr().err == "flam_jax: JAX_PLATFORMS=gpu: Unable to initialize backend 'gpu'\n"
