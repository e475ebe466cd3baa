"""Prediction by the paper's protocol: PSNR, SSIM, LPIPS and FVD of rollouts between floors and ceiling."""

from typing import Any

import numpy as np

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import choose, summarize
from flam_jax.pictures import rollout_picture, slot_picture
from flam_jax.world_model import WorldModel

KEY = ("rollout",)
FACTOR_PICTURES = 2  # of the rollouts that are shown, those of which every factor is shown too


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Nothing but frames."""
    del data, model
    return ""


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Per step and over all steps; and `evaluation.num_pictures` of the scored clips as pictures."""
    played = context.played
    values = summarize(played.parts, played.fvd, played.no_lpips)
    skipped = getattr(context.source, "unreadable", set()).intersection(context.clips)  # others stood in for them
    return values | ({"skipped_clips": len(skipped)} if skipped else {}), _pictures(context)


def _pictures(context: EvaluationContext) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    frames, attention = context.record["frames"], np.asarray(context.observation.attention)
    predicted = np.concatenate([part.predicted for part in context.played.parts])
    shown = choose(len(frames), context.settings.num_pictures) if context.settings.num_pictures else []
    for row in shown:
        picture = rollout_picture(frames[row], predicted[row], attention[row])
        found[f"Rollouts/clip {context.clips[row]}"] = picture
    for row in shown[:FACTOR_PICTURES]:
        picture = slot_picture(frames[row], attention[row])
        found[f"Attention of each factor/clip {context.clips[row]}"] = picture
    return found


__all__ = ["KEY", "needs", "run"]
