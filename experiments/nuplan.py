"""nuPlan: real driving, front camera, 224x224 (paper: K = 16, history of 5 frames).

    python -m flam_jax.topology --config=experiments/nuplan.py --topology=v5e:4x4

It has no reader of the data yet: the training step compiles from shapes alone, training itself says that it cannot
start. The paper's tokenizer there is MAGVIT-v2; this one is the tokenizer of Procgen at the same size.

Arguments, comma-separated: the camera (front) and a preset (none: the paper's setting; cpu and debug: small sizes).
"""

from flam_jax.config import Config, default_config, parse_arguments

CAMERAS = ("front",)


def get_config(arguments: str = "") -> Config:
    _, preset = parse_arguments(arguments, CAMERAS)
    config = default_config()
    config.data.name = "nuplan"
    config.data.frame_size = (224, 224)
    config.dynamics.num_factors = 16
    config.dynamics.total_action_dim = 256
    config.dynamics.update(local_context=True, aggregator="local")
    if preset:
        config.data.frame_size = (64, 64)
        config.tokenizer.channels = 32
        config.dynamics.update(num_factors=8, total_action_dim=64, model_dim=64, num_heads=4, prediction_steps=2)
        for training in (config.tokenizer.training, config.dynamics.training):
            training.update(num_steps=2_000, batch_size=8)
    if preset == "debug":
        config.tokenizer.update(channels=8, num_res_blocks=1)
        config.dynamics.update(model_dim=16, num_heads=2, total_action_dim=16, num_blocks=1, num_iterations=2)
        for training in (config.tokenizer.training, config.dynamics.training):
            training.update(num_steps=6, batch_size=2, log_every=2, eval_every=3, checkpoint_every=3)
    return config
