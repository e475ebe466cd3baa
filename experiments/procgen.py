"""Procgen games without backgrounds: a player and many others that move by themselves (paper: 224x224, K = 16).

    python -m flam_jax.main --config=experiments/procgen.py:bigfish,cpu --workdir=runs/bigfish

Arguments, comma-separated: a game (bigfish, leaper, starpilot), a preset (none: the paper's sizes; cpu: a real result
on 2 cores in minutes; debug: everything in a minute), and a model (none: this project's; paper: the paper's, with
nothing of this project's own).
"""

from flam_jax.config import Config, default_config, parse_arguments, use_paper_model

GAMES = ("bigfish", "leaper", "starpilot")
PRESETS = ("cpu", "debug")
MODELS = ("paper",)


def get_config(arguments: str = "") -> Config:
    game, preset, model = parse_arguments(arguments, GAMES, PRESETS, MODELS)
    config = default_config()
    config.data.name = "procgen"
    config.data.frame_size = (224, 224)
    config.data.procgen.game = game
    config.dynamics.num_factors = 16
    config.dynamics.total_action_dim = 256
    config.dynamics.training.accumulate = 4  # 784 patches and five prediction steps: a whole batch takes 33 GiB
    if preset:
        _cpu(config)
    if preset == "debug":
        _debug(config)
    if model == "paper":
        use_paper_model(config)
    return config


def _cpu(config: Config) -> None:
    config.data.frame_size = (64, 64)
    config.data.num_frames = 40_000
    tokenizer, dynamics, evaluation = config.tokenizer, config.dynamics, config.evaluation
    # Things move by less than a patch here, so patches are small and the codes many. Nearly all patches are copies of a
    # few: a step is trained on a sixteenth of them, the rare ones first (RESULTS.md).
    tokenizer.update(encoder="patch", decoder="patch", patch_size=4, channels=256, levels=(4,) * 15)
    tokenizer.update(patches_share=1 / 16, lpips_weight=0.0)
    tokenizer.training.update(
        num_steps=5_000,
        batch_size=16,
        window=4,
        learning_rate=2e-3,
        schedule="cosine",
        log_every=50,
        eval_every=1_000,
        checkpoint_every=1_000,
    )
    dynamics.update(
        model_dim=64,
        num_heads=4,
        history=4,
        # One step ahead first, then two: a little better late in a rollout (RESULTS.md).
        prediction_steps=2,
        prediction_steps_start=0.8,
        num_factors=8,
        total_action_dim=64,
        # Things move by less than a patch: a patch must see what is about to enter it, and slots what moves. Most of
        # what happens goes on as before, so the actions come to use late; until then any beta but 0 is all that moves
        # them (AdamW makes steps of one size of the smallest gradient), and they collapse.
        local_context=True,
        aggregator="local",
        kl_weight=0.0,
        kl_weight_final=5e-3,
        kl_anneal_start=0.5,
        cache_codes=True,
    )
    dynamics.training.update(
        num_steps=3_200,
        batch_size=8,
        accumulate=1,
        window=4,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=200,
        log_every=50,
        eval_every=1_000,
        checkpoint_every=1_000,
    )
    evaluation.update(context=4, num_clips=100, probe_clips=100)


def _debug(config: Config) -> None:
    config.data.num_frames = 640
    config.data.clip_length = 16
    config.tokenizer.channels = 16
    config.dynamics.update(model_dim=16, num_heads=2, num_blocks=1, num_iterations=2)
    config.dynamics.update(num_factors=4, total_action_dim=8)
    for training in (config.tokenizer.training, config.dynamics.training):
        training.update(num_steps=6, batch_size=2, warmup_steps=0, log_every=2, eval_every=3, checkpoint_every=3)
    config.evaluation.update(num_clips=2, batch_size=2, probe_clips=2, num_pictures=1)
