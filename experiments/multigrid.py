"""MultiGrid: several agents that turn and walk at once on an 8x8 grid (paper: 128x128, K = number of agents).

    python -m flam_jax.main --config=experiments/multigrid.py:cpu --workdir=runs/multigrid

Arguments, comma-separated: a variant (4agents, 2agents, 8agents, 16agents; correlated: two of four agents always act
alike; paper: four agents, and the paper's model with nothing of this project's own) and a preset (none: the paper's
setting; gpu: the paper's sizes, trained for minutes on one GPU; cpu: a real result on 2 cores in minutes; debug:
everything in a minute).
"""

from flam_jax.config import Config, default_config, parse_arguments, use_paper_model

PRESETS = ("gpu", "cpu", "debug")
VARIANTS = ("4agents", "2agents", "8agents", "16agents", "correlated", "paper")


def get_config(arguments: str = "") -> Config:
    variant, preset = parse_arguments(arguments, VARIANTS, PRESETS)
    config = default_config()
    config.data.name = "multigrid"
    agents = int(variant.removesuffix("agents")) if variant.endswith("agents") else 4
    config.data.multigrid.num_agents = agents
    config.data.multigrid.shared_actions = 2 if variant == "correlated" else 0
    config.dynamics.num_factors = 3 if variant == "correlated" else agents
    config.dynamics.total_action_dim = 64 * config.dynamics.num_factors
    config.dynamics.separation_penalty = 6.0  # two agents in one slot cannot be told apart
    if preset:
        _short(config)
    if preset == "gpu":
        _gpu(config)
    elif preset:
        _cpu(config)
    if preset == "debug":
        _debug(config)
    if variant == "paper":
        _paper(config)
    return config


def _short(config: Config) -> None:
    """What lets a few thousand steps do."""
    config.data.num_frames = 40_000
    tokenizer, dynamics, evaluation = config.tokenizer, config.dynamics, config.evaluation
    tokenizer.update(encoder="patch", decoder="patch", lpips_weight=0.0)
    tokenizer.training.update(
        num_steps=2_000,
        batch_size=16,
        window=4,
        learning_rate=1e-3,
        schedule="cosine",
        log_every=50,
        eval_every=500,
        checkpoint_every=500,
    )
    # More factors than agents: walls and floor take a slot each, and spare ones let the others sort themselves out.
    dynamics.num_factors += 4
    dynamics.prediction_steps = 1
    # β has its last value from the first step on: an agent that is split over two slots, or shares one, takes more to
    # tell of, and slots are sorted out while they can be. Learning starts later with it, so slots stay soft for longer
    # (docs/decisions/loss_and_beta.md).
    dynamics.update(kl_weight=5e-3, kl_weight_final=5e-3, inverse_temperature_start=0.125)
    dynamics.training.update(schedule="cosine", log_every=50, eval_every=1_000, checkpoint_every=1_000)
    evaluation.update(num_clips=100, probe_clips=100)


def _paper(config: Config) -> None:
    """As many factors as agents, and nothing in the model that the paper does not have."""
    dynamics = config.dynamics
    dynamics.total_action_dim = 4 * dynamics.total_action_dim // dynamics.num_factors
    dynamics.num_factors = 4
    use_paper_model(config)


def _gpu(config: Config) -> None:
    """The frames, the model, its windows and its batches are the paper's."""
    config.tokenizer.patch_size = 16  # a patch is a cell
    config.tokenizer.training.num_steps = 4_000
    dynamics = config.dynamics
    dynamics.total_action_dim = 32 * dynamics.num_factors
    dynamics.cache_codes = True
    dynamics.training.update(num_steps=2_000, learning_rate=5e-4, warmup_steps=100, eval_every=2_000)


def _cpu(config: Config) -> None:
    config.data.frame_size = (64, 64)
    dynamics = config.dynamics
    dynamics.total_action_dim = 8 * dynamics.num_factors
    dynamics.update(model_dim=64, num_heads=4, history=4)
    dynamics.training.update(num_steps=6_000, batch_size=16, window=4, learning_rate=1.5e-3, warmup_steps=200)
    config.evaluation.context = 4


def _debug(config: Config) -> None:
    config.data.num_frames = 640
    config.data.clip_length = 16
    config.tokenizer.channels = 16
    config.dynamics.update(model_dim=16, num_heads=2, num_blocks=1, num_iterations=2)
    config.dynamics.total_action_dim = 2 * config.dynamics.num_factors
    for training in (config.tokenizer.training, config.dynamics.training):
        training.update(num_steps=6, batch_size=2, warmup_steps=0, log_every=2, eval_every=3, checkpoint_every=3)
    config.evaluation.update(num_clips=2, batch_size=2, probe_clips=2, num_pictures=1)
