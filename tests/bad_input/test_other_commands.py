"""Mistakes on the command lines of studies, conversion and evaluation: each is one line that names it."""

from pathlib import Path

import pytest

from flam_jax import reproduce
from flam_jax.evaluation import __main__ as evaluation
from flam_jax.evaluation import convert_weights
from tests.bad_input.mistakes import LONG, WORKDIR, Bad, check, each

pytestmark = pytest.mark.timeout(60)

NO_PATHS = (" ", LONG, "a/" * 3000, "a\0b", "None", "gs://bucket/run", "~no_such_user/run")
STUDY = ("--study=multigrid", "--preset=debug")
_CHANGES = ("seed=x", "seeds=1", "dynamics.kl_wieght=1", "dynamics=3", "dynamics.num_heads=3", "tokenizer.levels=")
_MORE_CHANGES = ("evaluation.steps=13", "dynamics.name=flan", "mesh.data=0", "=3", "data.path= ", "dynamics.history=0")
REPRODUCE = [
    Bad((), ["--study is missing"]),
    Bad(STUDY, ["--workdir is missing"]),
    Bad((WORKDIR,), ["--study is missing"]),
    *each(("--study={}", WORKDIR), ("none", "Multigrid", "multigrid ", "1", "ñ", LONG), "--study="),
    *each(("{}", WORKDIR), ("--study", "--study="), "--study: a value is missing"),
    *each(("--study=slots", "--preset={}", WORKDIR), ("none", "CPU", "tpu", LONG), "--preset="),
    Bad(("--study=procgen", "--preset=gpu", WORKDIR), ["--preset=gpu", "cpu, paper, debug"]),
    *each((*STUDY, WORKDIR, "--jobs={}"), ("0", "-1", "x", "1.5", "nan", "1e3", "9" * 30, "9" * 5000, LONG), "--jobs="),
    *each((*STUDY, WORKDIR, "{}"), ("--jobs=", "--jobs", "--preset"), ": a value is missing"),
    Bad((*STUDY, WORKDIR, "--jobs=2", "--together"), ["--together"]),
    Bad((*STUDY, WORKDIR, "--together=yes"), ["--together takes no value"]),
    Bad((*STUDY, WORKDIR, "--together", "--together"), ["--together is given twice"]),
    Bad((*STUDY, *STUDY, WORKDIR), ["--study is given twice"]),
    *each((*STUDY, WORKDIR, "--together", "{}"), ("yes", "extra", "-j", "-j2", "study=x"), "unexpected argument '{}'"),
    *each((*STUDY, WORKDIR, "--{}=1"), ("job", "stud", "seed", "config", "work"), "unknown flag --{};"),
    Bad((*STUDY, WORKDIR, "--config.seed"), ["--config.seed: a value is missing"]),
    Bad((*STUDY, WORKDIR, "--config.seed=1", "--config.seed=2"), ["--config.seed is given twice"]),
    *(Bad((*STUDY, WORKDIR, f"--config.{it}"), [f"config.{it.split('=')[0]}"]) for it in (*_CHANGES, *_MORE_CHANGES)),
    *each(
        (*STUDY, WORKDIR, "{}=1"), ("--config.seed", "--config.dynamics.model_dim"), "{}: the runs of the study differ"
    ),
    *each((*STUDY, "--workdir={}"), NO_PATHS, "--workdir="),
    *each((*STUDY, "--workdir={}"), ("HERE/file", "HERE/file/below"), "--workdir: cannot write to {}", 1),
    *each((*STUDY, "--jobs=2", "--workdir={}"), ("HERE/file", "HERE/file/below"), "--workdir: cannot write to {}", 1),
]
I3D = ("--network=i3d", "--backbone=x")
CONVERT = [
    Bad((), ["--network is missing"]),
    Bad(("--network=i3d",), ["--backbone is missing"]),
    Bad(I3D, ["--out is missing"]),
    *each(("--network={}", "--backbone=x", "--out=x.npz"), ("lpips", "I3D", "i3d ", "0", LONG), "--network="),
    *each(("--network={}", "--backbone=x", "--out=x.npz"), ("lpips_alex", "lpips_vgg"), "--heads is missing: {}"),
    Bad((*I3D, "--heads=x", "--out=x.npz"), ["--heads: i3d has none"]),
    *each((*I3D, "--out={}"), ("weights", "x.npy", "x.npz/", "x.NPZ", " ", LONG), "--out="),
    *each((*I3D, "--{}=x.npz"), ("ou", "output", "o", "config.seed"), "unknown flag --{};"),
    *each(("--network=i3d", "--{}=", "--backbone=x"), ("backbone", "heads", "out"), "--{}: a value is missing"),
    Bad((*I3D, "--out=x.npz", "more"), ["unexpected argument 'more'"]),
    Bad((*I3D, "--out=x.npz", "--out=x.npz"), ["--out is given twice"]),
    *each(
        ("--network=i3d", "--backbone={}", "--out=HERE/x.npz"),
        ("HERE/nowhere", "HERE", "HERE/file/below", "a\nb"),
        "--backbone=",
        1,
    ),
    *each(("--network=i3d", "--backbone={}", "--out=HERE/x.npz"), NO_PATHS, "--backbone="),
    *each((*I3D, "--out={}.npz"), ("gs://x", "~no_such_user/x"), "--out="),
]
EVALUATION = [
    Bad((), ["--workdir is missing"]),
    *each(("--workdir=HERE", "--split={}"), ("train", "TEST", "test,val", LONG), "--split="),
    *each(("{}",), ("--workdir=", "--workdir"), "--workdir: a value is missing"),
    Bad(("--workdir=HERE", "--split="), ["--split: a value is missing"]),
    Bad(("--workdir=HERE", "--spilt=val"), ["unknown flag --spilt; the nearest is --split"]),
    Bad(("--workdir=HERE", "val"), ["unexpected argument 'val'"]),
    *each(("--workdir={}",), NO_PATHS, "--workdir="),
    *each(("--workdir={}",), ("HERE", "HERE/nowhere", "HERE/file"), "--workdir={}: no config.json there", 1),
]


def test_wrong_studies_are_named(here: Path) -> None:
    check(REPRODUCE, here, reproduce.main, "flam_jax.reproduce")


def test_wrong_conversions_are_named(here: Path) -> None:
    check(CONVERT, here, convert_weights.main, "flam_jax.evaluation.convert_weights")


def test_wrong_evaluations_are_named(here: Path) -> None:
    check(EVALUATION, here, evaluation.main, "flam_jax.evaluation")
