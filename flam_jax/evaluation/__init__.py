"""What a trained world model is worth: rollouts, binding, actions, leak.

`python -m flam_jax.evaluation --workdir=...` computes and writes all of it again.
"""

from flam_jax.evaluation.runner import evaluate

__all__ = ["evaluate"]
