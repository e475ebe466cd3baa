"""FLAM in JAX: factored latent action world models from video without action labels.

The public names. They load on first use, so `import flam_jax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flam_jax.build import build_dynamics, build_tokenizer
    from flam_jax.config import ConfigError, load_config
    from flam_jax.dynamics.flam import Flam
    from flam_jax.dynamics.interface import LatentActionModel, ModelOutput, ModelSpec
    from flam_jax.tokenizer.tokenizer import Tokenizer
    from flam_jax.world_model import WorldModel

_HOMES = {
    "ConfigError": "config",
    "Flam": "dynamics.flam",
    "LatentActionModel": "dynamics.interface",
    "ModelOutput": "dynamics.interface",
    "ModelSpec": "dynamics.interface",
    "Tokenizer": "tokenizer.tokenizer",
    "WorldModel": "world_model",
    "build_dynamics": "build",
    "build_tokenizer": "build",
    "load_config": "config",
}

__all__ = [
    "ConfigError",
    "Flam",
    "LatentActionModel",
    "ModelOutput",
    "ModelSpec",
    "Tokenizer",
    "WorldModel",
    "build_dynamics",
    "build_tokenizer",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
