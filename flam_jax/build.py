"""From configuration to modules: the place where the configuration object stops."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from data_pipelines import spec_of
from flam_jax.baselines.ablations import coupled_flam, recurrent_flam
from flam_jax.baselines.monolithic import monolithic
from flam_jax.baselines.object_centric import object_centric
from flam_jax.config import validate
from flam_jax.dynamics.flam import flam
from flam_jax.dynamics.interface import LatentActionModel
from flam_jax.models import MODELS
from flam_jax.tokenizer.decoders import CnnDecoder, PatchDecoder
from flam_jax.tokenizer.discriminator import PatchDiscriminator
from flam_jax.tokenizer.encoders import ImpalaEncoder, PatchEncoder
from flam_jax.tokenizer.magvit import MagvitDecoder, MagvitEncoder
from flam_jax.tokenizer.precomputed import PrecomputedFeatures
from flam_jax.tokenizer.tokenizer import Tokenizer

Fields = Mapping[str, Any]


def build_tokenizer(config: ConfigDict) -> Tokenizer | PrecomputedFeatures:
    """The tokenizer of a configuration: a linen module, initialized with what it `reads`, as floats.

    That is frames f32[*b H W 3] in [0, 1], or features f32[*b h w c] where the records bring them.
    """
    whole = validate(config)
    c: Any = whole.tokenizer
    dtype = jnp.dtype(c.training.dtype)
    shared = dict(channels=c.channels, patch_size=c.patch_size, dtype=dtype)
    # Each of the two is computed again when its gradient is taken, so that both are never held at once.
    maybe_remat = nn.remat if c.training.rematerialize else lambda kind: kind
    decoder = _decoder(c, maybe_remat, shared)
    if c.encoder == "precomputed":
        return PrecomputedFeatures(decoder, feature_shape(whole))
    if c.encoder == "impala":
        encoder = maybe_remat(ImpalaEncoder)(len(c.levels), num_res_blocks=c.num_res_blocks, **shared)
    elif c.encoder == "magvit":
        blocks: dict[str, Any] = dict(num_res_blocks=c.num_res_blocks, temporal_kernel=c.temporal_kernel)
        encoder = maybe_remat(MagvitEncoder)(len(c.levels), **blocks, **shared)
    else:
        encoder = maybe_remat(PatchEncoder)(len(c.levels), num_layers=c.num_res_blocks, **shared)
    return Tokenizer(encoder, decoder, tuple(c.levels))


def _decoder(c: Any, maybe_remat: Callable[[Any], Any], shared: Fields) -> nn.Module:
    if c.decoder == "cnn":
        return maybe_remat(CnnDecoder)(num_res_blocks=c.num_res_blocks, **shared)
    if c.decoder == "magvit":
        return maybe_remat(MagvitDecoder)(num_res_blocks=c.num_res_blocks, **shared)
    return maybe_remat(PatchDecoder)(num_layers=c.num_res_blocks, **shared)


def build_discriminator(config: ConfigDict) -> PatchDiscriminator:
    """The discriminator of the tokenizer's adversarial loss: a linen module, initialized with frames f32[b H W 3]."""
    c: Any = validate(config).tokenizer
    return PatchDiscriminator(c.channels, c.patch_size, jnp.dtype(c.training.dtype))


def feature_shape(config: ConfigDict) -> tuple[int, int, int]:
    """Rows, columns and channels of the features of a frame."""
    c: Any = config.tokenizer
    spec = spec_of(config.data)
    if c.encoder == "precomputed":
        h, w, channels = spec.annotations["features"].shape
        return h, w, channels
    return spec.height // c.patch_size, spec.width // c.patch_size, len(c.levels)


def build_dynamics(config: ConfigDict) -> LatentActionModel:
    """The dynamics model of a configuration: a linen module, initialized with features f32[b t h w c].

    The function of its line in `flam_jax.models` gets these plain fields by name: those of `config.dynamics` but its
    training, with `action_dim` (of one factor) beside `total_action_dim`; `slot_training_share` of its line;
    `rematerialize` and `dtype` of the training; `grid` (rows and columns of patches) and `feature_dim` of the features;
    `num_actors` and `num_choices` of the true actions, 0 where the records have none.
    """
    whole = validate(config)
    c, spec = whole.dynamics, spec_of(whole.data)
    *grid, feature_dim = feature_shape(whole)
    fields: dict[str, Any] = {name: value for name, value in c.items() if name not in ("name", "training")}
    fields |= dict(
        action_dim=c.total_action_dim // c.num_factors,
        slot_training_share=MODELS[c.name].slot_training_share,
        rematerialize=c.training.rematerialize,
        dtype=jnp.dtype(c.training.dtype),
        grid=tuple(grid),
        feature_dim=feature_dim,
        num_actors=spec.actors,
        num_choices=spec.num_actions,
    )
    return MODELS[c.name].build(fields)


def flam_model(fields: Fields) -> LatentActionModel:
    """FLAM."""
    return flam(**_some(fields, *_FLAM, "aggregator", "reconstruction_weight"))


def flam_recurrent(fields: Fields) -> LatentActionModel:
    """FLAM without temporal attention."""
    return recurrent_flam(**_some(fields, *_FLAM, "aggregator", "reconstruction_weight"))


def flam_coupled(fields: Fields) -> LatentActionModel:
    """FLAM with globally coupled dynamics."""
    return coupled_flam(**_some(fields, *_FLAM, "aggregator", "reconstruction_weight"))


def adaworld(fields: Fields) -> LatentActionModel:
    """One Gaussian action for the scene."""
    return monolithic(**_some(fields, *_FRAME, *_SIZES), action_dim=fields["total_action_dim"])


def genie(fields: Fields) -> LatentActionModel:
    """One action for the scene, from a codebook."""
    sizes = _some(fields, *_FRAME, *_SIZES)
    return monolithic(**sizes, action_dim=fields["total_action_dim"], num_codes=fields["codebook_size"])


def action_conditioned(fields: Fields) -> LatentActionModel:
    """The true actions of the scene."""
    known = (fields["num_actors"], fields["num_choices"])
    return monolithic(**_some(fields, *_FRAME, *_SIZES), actors_and_choices=known)


def playslot(fields: Fields) -> LatentActionModel:
    """Slots first, then dynamics with a latent action a slot."""
    return object_centric(**_some(fields, *_FRAME, *_FLAM, "slot_training_share"), num_codes=fields["codebook_size"])


def slotformer(fields: Fields) -> LatentActionModel:
    """Slots first, then dynamics without actions."""
    return playslot({**fields, "action_dim": 0})


_SIZES = ("model_dim", "num_blocks", "num_heads", "history", "rematerialize", "dtype")
_FRAME = ("grid", "feature_dim")
_FLAM = (
    *("num_factors", "action_dim", *_SIZES, "num_iterations", "inverse_temperature", "positions", "local_context"),
    *("inverse_frequency_power", "cosine_attention", "implicit_gradient"),
)


def _some(fields: Fields, *names: str) -> dict[str, Any]:
    return {name: fields[name] for name in names}
