"""The page of a run, made from numbers alone."""

import json

import numpy as np
import pytest

from flam_jax.reports.run_report import write_report
from tests.tiny import tiny_config

SOURCES = ("", "ceiling_", "copy_last_", "median_")


def run_result(**changes):
    """What `evaluation.json` of a run without annotations holds."""
    rollout = {"clips": 3, "lpips": "not computed: no weights", "lpips_mean": "", "fvd": "not computed: no weights"}
    for prefix in SOURCES:
        rollout |= {f"{prefix}{name}": [30.0, 28.0] for name in ("psnr", "moving_psnr")}
        rollout |= {f"{prefix}ssim": [0.9, 0.8], f"{prefix}ssim_mean": 0.85}
        rollout |= {f"{prefix}psnr_mean": 29.0, f"{prefix}moving_psnr_mean": 29.0}
    actions = {"kl": 3.0, "kl_per_factor": [1.0, 2.0], "active_units": 4, "active_units_per_factor": [1, 3], "units": 6}
    values = {
        "model": "flam",
        "dataset": "multigrid 4 agents 16x16",
        "split": "test",
        "identity": "0123456789ab",
        "seed": 0,
        "device": "1 x cpu",
        "steps": {"tokenizer": 300, "dynamics": 500},
        "seconds": {"tokenizer": 3.0, "dynamics": 200.0},
        "rollout": rollout,
        "actions": actions | {"shuffle_gain": 1.5},
    }
    return values | changes


def page_of(folder, result, pictures=None):
    return write_report(tiny_config(), folder, result, pictures).read_text()


def test_the_page_needs_no_other_file_and_is_the_same_for_the_same_numbers(tmp_path):
    entries = [
        {"stage": "dynamics", "step": step, "values": {"loss": 3.0, "validation/kl_factor/1": 0.5}} for step in (1, 2)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"cut o')
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    pictures = {"Rollouts/clip 7": image, "Something new/clip 8": image}
    page = page_of(tmp_path, run_result(), pictures)
    assert page == page_of(tmp_path, run_result(), pictures)
    assert page.count("data:image/png;base64,") == 2
    for part in ("http", "<script", "<link", "url(h", 'src="/'):
        assert part not in page, part
    for part in (
        "clip 7",
        "<h2>Something new</h2>",
        'aria-label="kl factor"',
        'aria-label="loss"',
        "2.50 times its own",
    ):
        assert part in page, part


def test_what_the_data_do_not_have_is_said(tmp_path):
    page = page_of(tmp_path, run_result(not_computed={"cells": "the frames are no boards of tiles"}))
    assert "<code>cells</code>: the frames are no boards of tiles." in page


def test_letters_are_kept_once_in_a_page(tmp_path):
    page = page_of(tmp_path, run_result())
    assert page.count("<svg") > 3
    assert page.count('id="DejaVuSans-50"') == 1  # the P of PSNR, in more than one title
    assert page.count('"#DejaVuSans-') > 50


@pytest.mark.parametrize(("steps", "shown"), [(99, True), (100, False)])
def test_a_run_that_is_too_short_says_so(steps, shown, tmp_path):
    page = page_of(tmp_path, run_result(steps={"tokenizer": 6, "dynamics": steps}))
    assert ("too short to mean anything" in page) == shown


def test_the_command_that_made_the_run_is_shown_where_it_is_known(tmp_path):
    assert "Made by" not in page_of(tmp_path, run_result())
    (tmp_path / "command.txt").write_text("python -m flam_jax.main --config=a.py:<x>\n")
    assert "Made by <code>python -m flam_jax.main --config=a.py:&lt;x&gt;</code>" in page_of(tmp_path, run_result())


def test_the_papers_numbers_stand_beside_a_run_on_its_data(tmp_path):
    assert "56.5" in page_of(tmp_path, run_result())
    assert "the paper" not in page_of(tmp_path, run_result(model="genie"))
    assert "the paper" not in page_of(tmp_path, run_result(dataset="multigrid 8 agents 64x64"))
    assert "the paper" not in page_of(tmp_path, run_result(dataset="multigrid 4 agents, 2 alike 64x64"))
