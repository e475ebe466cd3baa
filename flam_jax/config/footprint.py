"""The least memory that a configuration can need, by rough lower bounds: what passes may still be too much."""

import math
from typing import Any

from data_pipelines.spec import DatasetSpec
from flam_jax.models import MODELS


def least_memory(config: Any, spec: DatasetSpec, num_frames: int) -> dict[str, int]:
    """Bytes that some arrays, or one kind of parameters, take at least, by the field that makes them large.

    Args:
      config: of the run.
      spec: of its data set.
      num_frames: of its data set, over all splits; 0 where that is not known.
    """
    data, tokenizer, dynamics, evaluation = config.data, config.tokenizer, config.dynamics, config.evaluation
    frame, sides = (
        3 * spec.height * spec.width,
        (spec.height // tokenizer.patch_size, spec.width // tokenizer.patch_size),
    )
    patches, steps, length = math.prod(sides), evaluation.steps, evaluation.context + evaluation.steps
    code_bytes = len(tokenizer.levels)
    monolithic = MODELS[dynamics.name].one_slot
    factors = 1 if monolithic else dynamics.num_factors
    # Of one example: attention over patches, or a look for patches that are alike; and who holds which patch.
    maps = dynamics.num_heads if monolithic else int(dynamics.inverse_frequency_power > 0)
    pairs = 4 * maps * dynamics.training.window * patches**2
    masks = 4 * factors * dynamics.training.window * patches
    # Linear probes of every entity's cell, of every slot, with the ten steps that L-BFGS remembers.
    probes = 40 * dynamics.model_dim * spec.entities * sum(spec.cells or ())
    convolutions = tokenizer.encoder != "patch" or tokenizer.decoder != "patch"
    blocks = tokenizer.num_res_blocks
    layers = 2 * 9 * tokenizer.temporal_kernel * blocks if convolutions else max(blocks - 1, 0)
    clips = num_frames // data.clip_length // 10 if num_frames else evaluation.num_clips
    scored = min(evaluation.num_clips, clips)
    trained = num_frames * 4 // 5 * (1 + dynamics.copy_paste)  # frames

    def batches(training: Any, example: int, of_part: int | float) -> int:
        """Four that the loader has ready, one at work and the next; and what is made of one example of a part."""
        return training.batch_size * 6 * example + int(training.batch_size // training.accumulate * of_part)

    precomputed = tokenizer.encoder == "precomputed"
    features = 2 * patches * spec.annotations["features"].shape[-1] if precomputed else 0  # bytes of a frame's
    frames = tokenizer.training.window * (frame + features)
    seen = dynamics.training.window * (code_bytes * patches if dynamics.cache_codes else features or frame)
    floats = 0 if dynamics.cache_codes else 4 * dynamics.training.window * (features // 2 or frame)
    return {
        "tokenizer.patch_size": max(pairs, 4 * patches * sum(sides)),  # and the one-hot positions of patches
        # Parameters, gradients and two moments: 16 bytes for each.
        "tokenizer.channels": 16 * layers * tokenizer.channels**2,
        "dynamics.model_dim": 16 * 16 * dynamics.num_blocks * dynamics.model_dim**2,
        "dynamics.num_factors": max(masks, factors * probes, factors * length * frame),  # the last is a picture
        "dynamics.cache_codes": trained * patches * code_bytes if dynamics.cache_codes else 0,
        # Frames and their reconstruction as floats.
        "tokenizer.training.batch_size": batches(tokenizer.training, frames, 8 * frames * tokenizer.patches_share),
        "dynamics.training.batch_size": batches(dynamics.training, seen, max(pairs, masks, floats)),
        # Clips; and what is imagined and reconstructed, as floats, then rounded.
        "evaluation.batch_size": evaluation.batch_size * frame * (length + 8 * steps),
        "evaluation.num_clips": scored * frame * (length + 2 * steps),
    }
