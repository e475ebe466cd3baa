"""Runs of a study, without any training."""

from typing import Any

import numpy as np

from flam_jax.studies.definitions import ABLATIONS, ADAWORLD, BETAS, FACTORS, FLAM, GENIE, INFORMATION, PLAYSLOT, Row
from flam_jax.studies.summary import FinishedRun, study_result

ROWS = {row.key: row for row in (FLAM, GENIE, ADAWORLD, PLAYSLOT, *ABLATIONS, *BETAS, *FACTORS, *INFORMATION)}


def result(psnr: list[float], **changes: Any) -> dict[str, Any]:
    """What `evaluation.json` of a run could hold."""
    values = {
        "rollout": {
            "psnr": psnr,
            "psnr_mean": float(np.mean(psnr)),
            "ceiling_psnr": [50.0] * len(psnr),
            "ceiling_psnr_mean": 50.0,
            "ssim_mean": 0.9,
            "lpips": "not computed",
        },
        "actions": {"kl": 3.0},
        "device": "1 x cpu",
        "steps": {"dynamics": 6},
        "seconds": {"dynamics": 2.0},
        "parameters": {"dynamics": 100},
    }
    return values | changes


def finished(
    row: str | Row, seed: int, found: dict[str, Any], column: str = "4agents", **position: float | int
) -> FinishedRun:
    """A run of a row, which is named by its key where it is one of the studies' own."""
    return FinishedRun(column, ROWS[row] if isinstance(row, str) else row, seed, found, position)


def study(runs: list[FinishedRun], **changes: Any) -> dict[str, Any]:
    """Contents of `results.json`."""
    return study_result(
        **{"study": "multigrid", "preset": "cpu", "command": "python -m a", "runs": runs} | changes  # pyright: ignore
    )
