"""Prediction by the paper's protocol: PSNR, SSIM, LPIPS and FVD of rollouts between floors and ceiling."""

from typing import Any

import numpy as np

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import summarize
from flam_jax.world_model import WorldModel

KEY = ("rollout",)


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Nothing but frames."""
    del data, model
    return ""


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Per step and over all steps."""
    played = context.played
    values = summarize(played.parts, played.fvd, played.no_lpips)
    skipped = getattr(context.source, "unreadable", set()).intersection(context.clips)  # others stood in for them
    return values | ({"skipped_clips": len(skipped)} if skipped else {}), {}


__all__ = ["KEY", "needs", "run"]
