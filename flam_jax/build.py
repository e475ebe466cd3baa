"""From configuration to modules: the place where the configuration object stops."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from flam_jax.baselines.ablations import coupled_flam, recurrent_flam
from flam_jax.baselines.monolithic import monolithic
from flam_jax.baselines.object_centric import object_centric
from flam_jax.config import Config, validate
from flam_jax.dynamics.flam import flam
from flam_jax.dynamics.interface import LatentActionModel
from flam_jax.tokenizer.decoders import CnnDecoder, PatchDecoder
from flam_jax.tokenizer.encoders import ImpalaEncoder, PatchEncoder
from flam_jax.tokenizer.tokenizer import Tokenizer

# Of one actor: turn left, turn right, forward; and Procgen's own numbering.
MULTIGRID_ACTIONS, PROCGEN_ACTIONS = 3, 15
FACTORED = {"flam": flam, "flam_recurrent": recurrent_flam, "flam_coupled": coupled_flam}


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


def build_dynamics(config: ConfigDict) -> LatentActionModel:
    """The dynamics model of a configuration: a linen module, initialized with features f32[b t h w c]."""
    whole = validate(config)
    c = whole.dynamics
    sizes: dict[str, Any] = dict(
        model_dim=c.model_dim,
        num_blocks=c.num_blocks,
        num_heads=c.num_heads,
        history=c.history,
        rematerialize=c.training.rematerialize,
        dtype=jnp.dtype(c.training.dtype),
    )
    height, width = frame_size(whole)
    patch = whole.tokenizer.patch_size
    frame = dict(grid=(height // patch, width // patch), feature_dim=len(whole.tokenizer.levels))
    if c.name == "adaworld":
        return monolithic(**frame, action_dim=c.total_action_dim, **sizes)
    if c.name == "genie":
        return monolithic(**frame, action_dim=c.total_action_dim, num_codes=c.codebook_size, **sizes)
    if c.name == "action_conditioned":
        return monolithic(**frame, actors_and_choices=true_actions(whole), **sizes)
    slots: dict[str, Any] = dict(
        num_factors=c.num_factors,
        action_dim=c.total_action_dim // c.num_factors,
        num_iterations=c.num_iterations,
        inverse_temperature=c.inverse_temperature,
        positions=c.positions,
        local_context=c.local_context,
        inverse_frequency_power=c.inverse_frequency_power,
        cosine_attention=c.cosine_attention,
        implicit_gradient=c.implicit_gradient,
    )
    if c.name in ("playslot", "slotformer"):
        slots["action_dim"] *= c.name == "playslot"
        training = dict(num_codes=c.codebook_size, slot_training_share=c.slot_training_share)
        return object_centric(**frame, **training, **slots, **sizes)
    return FACTORED[c.name](aggregator=c.aggregator, **slots, **sizes)


def frame_size(config: Config) -> tuple[int, int]:
    """Height and width of a frame in pixels."""
    return config.data.frame_size, config.data.frame_size


def true_actions(config: Config) -> tuple[int, int]:
    """How many actors' actions the records hold, and how many actions each of them has."""
    if config.data.name == "multigrid":
        return config.data.multigrid.num_agents, MULTIGRID_ACTIONS
    return 1, PROCGEN_ACTIONS
