"""nuPlan: real driving, front camera, 224x224 (paper: K = 16, history of 5 frames).

    python -m flam_jax.main --config=experiments/nuplan.py --config.data.nuplan.source=nuplan-v1.1 --workdir=runs/nuplan
    python -m flam_jax.topology --config=experiments/nuplan.py --topology=v5e:4x4

The source is the user's own download, with `splits` and `sensor_blobs`. The tokenizer is of MAGVIT-v2's kind, as in
the paper: causal in time, lookup-free quantization, adversarial loss; its widths are half of MAGVIT-v2's. A code is 18
bits of 16x16 pixels, so a frame has 14x14 codes; with 8x8 pixels attention over them would take 16 times as much.

Arguments, comma-separated: the camera (front, left, right, back) and a preset (none: the paper's sizes; cpu and
debug: small sizes).
"""

from flam_jax.config import Config, default_config, parse_arguments

CAMERAS = {"front": "CAM_F0", "left": "CAM_L0", "right": "CAM_R0", "back": "CAM_B0"}


def get_config(arguments: str = "") -> Config:
    camera, preset = parse_arguments(arguments, tuple(CAMERAS))
    config = default_config()
    config.data.name = "nuplan"
    config.data.frame_size = (224, 224)
    config.data.nuplan.camera = CAMERAS.get(camera, "CAM_F0")
    config.tokenizer.update(encoder="magvit", decoder="magvit", temporal_kernel=3)
    config.tokenizer.update(patch_size=16, channels=256, levels=(2,) * 18)
    config.tokenizer.update(entropy_weight=0.01, adversarial_weight=0.1)
    config.tokenizer.training.update(batch_size=16, window=8)  # frames before the current one are seen
    config.dynamics.num_factors = 16
    config.dynamics.total_action_dim = 256
    config.dynamics.update(local_context=True, aggregator="local")
    if preset:
        config.data.update(frame_size=(64, 64), clip_length=16)
        config.tokenizer.update(patch_size=8, channels=32, num_res_blocks=1, temporal_kernel=1, adversarial_weight=0.0)
        config.tokenizer.training.window = 2
        config.dynamics.update(num_factors=8, total_action_dim=64, model_dim=64, num_heads=4, prediction_steps=2)
        for training in (config.tokenizer.training, config.dynamics.training):
            training.update(num_steps=2_000, batch_size=8)
    if preset == "debug":
        config.tokenizer.update(channels=8, temporal_kernel=3, adversarial_weight=0.1, adversarial_start=0.5)
        config.dynamics.update(model_dim=16, num_heads=2, total_action_dim=16, num_blocks=1, num_iterations=2)
        for training in (config.tokenizer.training, config.dynamics.training):
            training.update(num_steps=6, batch_size=2, log_every=2, eval_every=3, checkpoint_every=3)
        config.evaluation.update(num_clips=2, batch_size=2, probe_clips=2, num_pictures=1)
    return config
