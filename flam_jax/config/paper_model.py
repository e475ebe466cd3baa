"""The paper's model as far as its description goes, with nothing that this project adds to it."""

from typing import Any

from flam_jax.config.schema import Config

# Fields of `dynamics`. Patches query slots with their content, positions are in the features, slots are neither
# separated nor annealed, patches all count the same, β is constant. What the paper does not state stays as it is here:
# how long is trained and at which sizes, the bounds of the posterior, small initial changes of the features.
PAPER_MODEL: dict[str, Any] = {
    "name": "flam",
    "positions": "features",
    "local_context": False,
    "cosine_attention": False,
    "implicit_gradient": False,
    "inverse_frequency_power": 0.0,
    "separation_penalty": 0.0,
    "inverse_temperature": 1.0,
    "slot_anneal_end": 0.0,
    "inverse_temperature_start": 1.0,
    "inverse_temperature_jitter": 0.0,
    "query_noise": 0.0,
    "aggregator": "cross_attention",
    "kl_weight": 2e-4,
    "kl_weight_final": 2e-4,
}


def use_paper_model(config: Config) -> None:
    """Sets the fields of the model, and of the tokenizer's loss the one that weighs what changes."""
    config.dynamics.update(PAPER_MODEL)
    config.tokenizer.change_weight = 0.0


__all__ = ["PAPER_MODEL", "use_paper_model"]
