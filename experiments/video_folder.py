"""Your own videos: a folder of video files, or of folders of pictures, however deep.

    python -m flam_jax.main --config=experiments/video_folder.py --config.data.video_folder.source=DIR --workdir=runs/my

128x128 pixels, 10 frames a second. Arguments, comma-separated: a variant (any: your folder; yard: OpenCV's film of
people in a yard, 96x72 pixels, in sizes for 2 cores; docs/guide/data.md says how to get it) and a preset (none: sizes
for a GPU, a tokenizer of MAGVIT-v2's kind; cpu: 64x64 pixels on 2 cores; debug: everything in a minute).
"""

from flam_jax.config import Config, default_config, parse_arguments

VARIANTS = ("any", "yard")


def get_config(arguments: str = "") -> Config:
    variant, preset = parse_arguments(arguments, VARIANTS)
    config = default_config()
    config.data.update(name="video_folder", frame_size=(128, 128), clip_length=32)
    config.tokenizer.update(encoder="magvit", decoder="magvit", channels=256, levels=(2,) * 18, entropy_weight=0.01)
    # Things in a video are several patches and move by less than one.
    config.dynamics.update(local_context=True, aggregator="local", positions="keys")
    config.dynamics.update(num_factors=8, total_action_dim=64, prediction_steps=2, prediction_steps_start=0.8)
    if preset or variant == "yard":
        _cpu(config)
    if variant == "yard":
        _yard(config)
    if preset == "debug":
        _debug(config)
    return config


def _cpu(config: Config) -> None:
    config.data.update(frame_size=(64, 64), clip_length=16)
    config.tokenizer.update(encoder="patch", decoder="patch", patch_size=4, channels=256, levels=(4,) * 15)
    config.tokenizer.update(patches_share=1 / 16, lpips_weight=0.0, entropy_weight=0.0)
    config.tokenizer.training.update(
        num_steps=3_000,
        batch_size=16,
        window=4,
        learning_rate=2e-3,
        schedule="cosine",
        log_every=50,
        eval_every=1_000,
        checkpoint_every=1_000,
    )
    config.dynamics.update(cache_codes=True, model_dim=64, num_heads=4, history=4)
    config.dynamics.update(kl_weight=0.0, kl_weight_final=5e-3, kl_anneal_start=0.3)
    config.dynamics.training.update(
        num_steps=3_000,
        batch_size=8,
        window=4,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=200,
        log_every=50,
        eval_every=1_000,
        checkpoint_every=1_000,
    )
    config.evaluation.update(context=4, num_clips=100, probe_clips=100)


def _yard(config: Config) -> None:
    config.data.frame_size = (72, 96)
    config.data.video_folder.update(source="videos/yard", clip_step=4)
    # People are three patches small: as many bits as their patches hold.
    config.tokenizer.levels = (8,) * 20
    # 600 frames are soon learned by heart: clips have copies in which other people walk in other places.
    config.dynamics.copy_paste = 9
    # Slots that are carried from frame to frame, and longer windows. Actions are of use late: they are free for long.
    config.dynamics.update(name="flam_recurrent", kl_anneal_start=0.6, prediction_steps=3, prediction_steps_start=0.85)
    config.dynamics.training.update(num_steps=2_000, batch_size=4, window=8)


def _debug(config: Config) -> None:
    config.tokenizer.channels = 16
    config.dynamics.update(model_dim=16, num_heads=2, num_blocks=1, num_iterations=2, total_action_dim=16)
    for training in (config.tokenizer.training, config.dynamics.training):
        training.update(num_steps=6, batch_size=2, warmup_steps=0, log_every=2, eval_every=3, checkpoint_every=3)
    config.evaluation.update(num_clips=2, batch_size=2, probe_clips=2, num_pictures=1)
