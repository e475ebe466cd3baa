"""The tokenizer (stage 1): frames -> features on a finite grid -> frames."""

from typing import ClassVar

import flax.linen as nn
import flax.struct
from jaxtyping import Array, Float, UInt8

from flam_jax.axes import with_logical_constraint
from flam_jax.tokenizer import fsq


@flax.struct.dataclass
class TokenizerOutput:
    """What one pass through the tokenizer gives."""

    continuous: Float[Array, "*b h w c"]  # bounded, before rounding
    features: Float[Array, "*b h w c"]  # rounded, straight-through gradient
    reconstruction: Float[Array, "*b H W 3"]  # unclipped


class Tokenizer(nn.Module):
    """Encoder, finite scalar quantization, decoder (PAPER: tokenizer). All methods take any leading axes.

    Attributes:
      encoder: frames `b H W 3` in [0, 1] to unbounded features `b h w c`.
      decoder: features `b h w c` to frames `b H W 3`.
      levels: quantization levels per feature channel; c = len(levels).
    """

    reads: ClassVar[str] = "frames"  # of a record

    encoder: nn.Module
    decoder: nn.Module
    levels: tuple[int, ...]

    def __call__(self, frames: Float[Array, "*b H W 3"]) -> TokenizerOutput:
        continuous = self._continuous(frames)
        features = fsq.quantize(continuous, self.levels)
        return TokenizerOutput(continuous, features, self._decode(features))

    def encode(self, frames: Float[Array, "*b H W 3"]) -> Float[Array, "*b h w c"]:
        """Features of frames in [0, 1], on the grid."""
        return fsq.quantize(self._continuous(frames), self.levels)

    def decode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b H W 3"]:
        """Frames in [0, 1] of features."""
        return self._decode(features).clip(0.0, 1.0)

    def codes(self, features: Float[Array, "*b h w c"]) -> UInt8[Array, "*b h w c"]:
        """Codes of features: the number of the level of every channel."""
        return fsq.features_to_codes(features, self.levels)

    def features(self, codes: UInt8[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Features of codes."""
        return fsq.codes_to_features(codes, self.levels)

    def quantize(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Nearest features on the grid, with the straight-through gradient."""
        return fsq.quantize(features, self.levels)

    def _continuous(self, frames: Float[Array, "*b H W 3"]) -> Float[Array, "*b h w c"]:
        batch = frames.shape[:-3]
        # Centred: a zero frame would otherwise be a zero input.
        x = self.encoder(with_logical_constraint(frames.reshape(-1, *frames.shape[-3:]), "image") * 2.0 - 1.0)
        return fsq.bound(x).reshape(*batch, *x.shape[1:])

    def _decode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b H W 3"]:
        x = self.decoder(with_logical_constraint(features.reshape(-1, *features.shape[-3:]), "image"))
        return x.reshape(*features.shape[:-3], *x.shape[1:])
