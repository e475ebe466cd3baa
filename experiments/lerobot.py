"""LeRobot data sets, formats 2.1 and 3.0: video of one camera of a robot (128x128 pixels), its actions kept for probes.

    python -m flam_jax.main --config=experiments/lerobot.py --config.data.lerobot.source=DIR --workdir=runs/robot

With several cameras, `--config.data.lerobot.camera=observation.images.top` names one. Arguments, comma-separated: a
preset (none: sizes for a GPU; cpu: 64x64 pixels on 2 cores; debug: everything in a minute).
"""

from flam_jax.config import Config, default_config, parse_arguments


def get_config(arguments: str = "") -> Config:
    _, preset = parse_arguments(arguments, ())
    config = default_config()
    config.data.update(name="lerobot", frame_size=(128, 128), clip_length=32)
    config.dynamics.update(local_context=True, aggregator="local", positions="keys")
    config.dynamics.update(num_factors=8, total_action_dim=64, prediction_steps=2, prediction_steps_start=0.8)
    if preset:
        config.data.update(frame_size=(64, 64), clip_length=16)
        config.data.lerobot.stride = 3
        config.tokenizer.update(encoder="patch", decoder="patch", patch_size=4, channels=256, levels=(4,) * 15)
        config.tokenizer.update(patches_share=1 / 16, lpips_weight=0.0)
        config.dynamics.update(cache_codes=True, model_dim=64, num_heads=4, history=4)
        config.dynamics.update(kl_weight=0.0, kl_weight_final=5e-3, kl_anneal_start=0.3)
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
