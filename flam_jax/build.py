"""From configuration to modules: the place where the configuration object stops."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from flam_jax.baselines.ablations import CoupledFlam, RecurrentFlam
from flam_jax.baselines.action_conditioned import ActionConditioned
from flam_jax.baselines.monolithic import Monolithic
from flam_jax.baselines.object_centric import ObjectCentric
from flam_jax.config import Config, validate
from flam_jax.dynamics.flam import Flam
from flam_jax.tokenizer.decoders import CnnDecoder, PatchDecoder
from flam_jax.tokenizer.encoders import ImpalaEncoder, PatchEncoder
from flam_jax.tokenizer.tokenizer import Tokenizer

# Of one actor: turn left, turn right, forward; and Procgen's own numbering.
MULTIGRID_ACTIONS, PROCGEN_ACTIONS = 3, 15
FACTORED = {"flam": Flam, "flam_recurrent": RecurrentFlam, "flam_coupled": CoupledFlam}


def build_tokenizer(config: ConfigDict) -> Tokenizer:
    """The tokenizer of a configuration: a linen module, initialized with frames f32[*b H W 3]."""
    c = validate(config).tokenizer
    dtype = jnp.dtype(c.training.dtype)
    shared = dict(channels=c.channels, patch_size=c.patch_size, dtype=dtype)
    # Each of the two is computed again when its gradient is taken, so that both are never held at once.
    again = nn.remat if c.training.rematerialize else lambda kind: kind
    if c.encoder == "impala":
        encoder = again(ImpalaEncoder)(len(c.levels), num_res_blocks=c.num_res_blocks, **shared)
    else:
        encoder = again(PatchEncoder)(len(c.levels), num_layers=c.num_res_blocks, **shared)
    if c.decoder == "cnn":
        decoder = again(CnnDecoder)(num_res_blocks=c.num_res_blocks, **shared)
    else:
        decoder = again(PatchDecoder)(num_layers=c.num_res_blocks, **shared)
    return Tokenizer(encoder, decoder, tuple(c.levels))


def build_dynamics(config: ConfigDict) -> nn.Module:
    """The dynamics model of a configuration: a linen module, initialized with features f32[b t h w c].

    FLAM, or a baseline that answers the same methods.
    """
    whole = validate(config)
    c = whole.dynamics
    shared: dict[str, Any] = dict(
        model_dim=c.model_dim,
        num_blocks=c.num_blocks,
        num_heads=c.num_heads,
        history=c.history,
        rematerialize=c.training.rematerialize,
        dtype=jnp.dtype(c.training.dtype),
    )
    frame: dict[str, Any] = dict(
        grid=whole.data.frame_size // whole.tokenizer.patch_size, feature_dim=len(whole.tokenizer.levels)
    )
    if c.name in ("genie", "adaworld"):
        bottleneck = "codebook" if c.name == "genie" else "gaussian"
        return Monolithic(
            action_dim=c.total_action_dim, bottleneck=bottleneck, num_codes=c.codebook_size, **frame, **shared
        )
    if c.name == "action_conditioned":
        actors, choices = true_actions(whole)
        return ActionConditioned(action_dim=actors * choices, num_actors=actors, num_choices=choices, **frame, **shared)
    slots: dict[str, Any] = dict(
        num_factors=c.num_factors,
        action_dim=c.total_action_dim // c.num_factors,
        num_iterations=c.num_iterations,
        attention_sharpness=c.inverse_temperature,
        position_in_keys=c.positions == "keys",
        local_context=c.local_context,
        rarity=c.inverse_frequency_power,
    )
    if c.name in ("playslot", "slotformer"):
        slots["action_dim"] *= c.name == "playslot"
        return ObjectCentric(num_codes=c.codebook_size, **frame, **slots, **shared)
    return FACTORED[c.name](**slots, **shared)


def true_actions(config: Config) -> tuple[int, int]:
    """How many actors' actions the records hold, and how many actions each of them has."""
    if config.data.name == "multigrid":
        return config.data.multigrid.num_agents, MULTIGRID_ACTIONS
    return 1, PROCGEN_ACTIONS
