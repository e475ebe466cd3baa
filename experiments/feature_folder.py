"""Features of your own network (DINO, a video model, ...) in place of a tokenizer's, beside the frames they are of.

    python -m flam_jax.main --config=experiments/feature_folder.py --config.data.feature_folder.source=DIR
        --config.data.feature_folder.shape=16,16,384 --config.data.frame_size=256,256 --config.tokenizer.patch_size=16
        --workdir=runs/features

Every folder in DIR with `frames.npy` (u8[n H W 3]) and `features.npy` (float[n h w c]) is a video. The first stage
trains a decoder, to look at predictions; the model itself works on the features. Arguments, comma-separated: a preset
(none: sizes for a GPU; cpu: for 2 cores; debug: everything in a minute, features of 8x8x32).
"""

from flam_jax.config import Config, default_config, parse_arguments


def get_config(arguments: str = "") -> Config:
    _, preset = parse_arguments(arguments, ())
    config = default_config()
    config.data.update(name="feature_folder", frame_size=(256, 256), clip_length=32)
    config.tokenizer.update(encoder="precomputed", patch_size=16)
    config.tokenizer.training.num_steps = 20_000
    config.dynamics.update(local_context=True, aggregator="local", positions="keys", inverse_frequency_power=0.0)
    config.dynamics.update(num_factors=8, total_action_dim=64, prediction_steps=2, prediction_steps_start=0.8)
    if preset:
        config.data.update(frame_size=(64, 64), clip_length=16)
        config.data.feature_folder.shape = (8, 8, 32)
        config.tokenizer.update(decoder="patch", patch_size=8, channels=256, lpips_weight=0.0)
        config.dynamics.update(model_dim=64, num_heads=4, history=4)
        for training in (config.tokenizer.training, config.dynamics.training):
            training.update(num_steps=3_000, batch_size=8, window=4, learning_rate=2e-3, schedule="cosine")
            training.update(warmup_steps=200, log_every=50, eval_every=1_000, checkpoint_every=1_000)
        config.evaluation.update(context=4, num_clips=100, probe_clips=100)
    if preset == "debug":
        config.tokenizer.channels = 16
        config.dynamics.update(model_dim=16, num_heads=2, num_blocks=1, num_iterations=2, total_action_dim=16)
        for training in (config.tokenizer.training, config.dynamics.training):
            training.update(num_steps=6, batch_size=2, warmup_steps=0, log_every=2, eval_every=3, checkpoint_every=3)
        config.evaluation.update(num_clips=2, batch_size=2, probe_clips=2, num_pictures=1)
    return config
