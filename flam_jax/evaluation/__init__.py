"""What a trained world model is worth: rollouts, binding, actions, leak.

`python -m flam_jax.evaluation --workdir=...` computes and writes all of it again.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flam_jax.evaluation.runner import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name != "evaluate":  # imported when it is used: the help of a command needs no JAX
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.runner").evaluate
