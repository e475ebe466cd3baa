"""Features that come with the data in place of a tokenizer's, and a decoder to look at them."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from flam_jax.axes import with_logical_constraint
from flam_jax.tokenizer.tokenizer import TokenizerOutput

_EPSILON = 1e-6


class PrecomputedFeatures(nn.Module):
    """Stands in for a `Tokenizer` where a network of the user's has made the features. All methods take leading axes.

    The features of a patch are brought to mean 0 and variance 1 over their channels, as V-JEPA (Bardes et al. 2024)
    does with what it predicts: networks differ in the scale of what they give, and losses are sums of squares. There is
    no grid that predictions are rounded to, hence no codes. The decoder is for looking at: nothing else depends on it.

    Attributes:
      decoder: features `b h w c` to frames `b H W 3`.
      shape: h, w, c.
    """

    reads: ClassVar[str] = "features"  # of a record
    levels: ClassVar[tuple[int, ...]] = ()

    decoder: nn.Module
    shape: tuple[int, int, int]

    def __call__(self, features: Float[Array, "*b h w c"]) -> TokenizerOutput:
        features = self.encode(features)
        return TokenizerOutput(features, features, self._decode(features))

    def encode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """The features, normalized."""
        x = features.astype(jnp.float32)
        x = x - x.mean(axis=-1, keepdims=True)
        return x / jnp.sqrt(jnp.square(x).mean(axis=-1, keepdims=True) + _EPSILON)

    def decode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b H W 3"]:
        """Frames in [0, 1] of normalized features."""
        return self._decode(features).clip(0.0, 1.0)

    def quantize(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """The features as they are."""
        return features

    def _decode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b H W 3"]:
        x = self.decoder(with_logical_constraint(features.reshape(-1, *features.shape[-3:]), "image"))
        return x.reshape(*features.shape[:-3], *x.shape[1:])
