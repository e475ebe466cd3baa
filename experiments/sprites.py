"""Sprites: four shapes that move continuously, over each other and up to the walls (64x64; patches of 4 pixels).

    python -m flam_jax.main --config=experiments/sprites.py:cpu --workdir=runs/sprites

Arguments, comma-separated: a variant (plain; alike: one shape and one color; sizes: from 7 to 18 pixels; texture,
moving: a textured ground, at rest or drifting; panning: a camera that pans over one) and a preset (none: sizes for a
GPU; cpu: a real result on 2 cores; debug: everything in a minute).
"""

from flam_jax.config import Config, default_config, parse_arguments

VARIANTS = ("plain", "alike", "sizes", "texture", "moving", "panning")


def get_config(arguments: str = "") -> Config:
    variant, preset = parse_arguments(arguments, VARIANTS)
    config = default_config()
    config.data.update(name="sprites", frame_size=(64, 64), num_frames=100_000)
    _scene(config, variant)
    # A shape is several patches and moves by less than one: a patch must see what is about to enter it, and slots what
    # moves. Slots are carried from frame to frame: shapes that look alike are told apart by where they were. Walls and
    # ground take slots too.
    config.tokenizer.update(encoder="patch", decoder="patch", patch_size=4, channels=256, levels=(4,) * 15)
    config.dynamics.update(local_context=True, aggregator="local", positions="keys", cache_codes=True)
    config.dynamics.update(name="flam_recurrent", num_factors=6, total_action_dim=48, prediction_steps=1)
    if preset:
        _cpu(config)
    if preset == "debug":
        _debug(config)
    return config


def _scene(config: Config, variant: str) -> None:
    sprites = config.data.sprites
    if variant == "alike":
        sprites.update(one_color=True, one_shape=True)
    elif variant == "sizes":
        sprites.update(smallest=7.0, largest=18.0)
    elif variant == "texture":
        sprites.background = "texture"
    elif variant == "moving":
        sprites.background = "moving"
    elif variant == "panning":
        sprites.update(background="texture", camera_speed=1.0)


def _cpu(config: Config) -> None:
    config.data.num_frames = 40_000
    config.tokenizer.update(patches_share=1 / 16, lpips_weight=0.0)
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
    config.dynamics.update(model_dim=64, num_heads=4, history=4)
    config.dynamics.update(kl_weight=0.0, kl_weight_final=0.3, kl_anneal_start=0.3)
    config.dynamics.training.update(
        num_steps=7_200,
        batch_size=8,
        window=4,
        optimizer="muon",
        learning_rate=4e-3,
        schedule="cosine",
        warmup_steps=200,
        log_every=50,
        eval_every=1_000,
        checkpoint_every=1_000,
    )
    config.evaluation.update(context=4, num_clips=100, probe_clips=100)


def _debug(config: Config) -> None:
    config.data.num_frames = 640
    config.data.clip_length = 16
    config.tokenizer.channels = 16
    config.dynamics.update(model_dim=16, num_heads=2, num_blocks=1, num_iterations=2, total_action_dim=12)
    for training in (config.tokenizer.training, config.dynamics.training):
        training.update(num_steps=6, batch_size=2, warmup_steps=0, log_every=2, eval_every=3, checkpoint_every=3)
    config.evaluation.update(num_clips=2, batch_size=2, probe_clips=2, num_pictures=1)
