"""The tokenizer (stage 1): frames -> features on a finite grid -> frames."""

from typing import Any, ClassVar

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

    With an encoder of clips whose `temporal_kernel` is above 1, axis -4 of frames is time; a frame without it begins a
    clip. Otherwise every frame is encoded by itself.

    Attributes:
      encoder: frames in [-1, 1] to unbounded features: `b H W 3` to `b h w c`; or `b t H W 3` to `b t h w c` where it
        has a `temporal_kernel`.
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

    def init_cache(self, frame: Float[Array, "b H W 3"]) -> Any:
        """What `encode_frame` remembers before a clip that begins with this frame; empty where frames are independent.

        Its size does not depend on the number of frames.
        """
        return self.encoder.init_cache(frame * 2.0 - 1.0) if self._over_time else ()

    def encode_frame(self, cache: Any, frame: Float[Array, "b H W 3"]) -> tuple[Any, Float[Array, "b h w c"]]:
        """The memory after a clip's next frame, and its features on the grid: `encode`, one frame at a time."""
        if not self._over_time:
            return cache, self.encode(frame)
        cache, x = self.encoder.encode_frame(cache, frame * 2.0 - 1.0)
        return cache, fsq.quantize(fsq.bound(x), self.levels)

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

    @property
    def _over_time(self) -> bool:
        return getattr(self.encoder, "temporal_kernel", 1) > 1

    def _continuous(self, frames: Float[Array, "*b H W 3"]) -> Float[Array, "*b h w c"]:
        batch, size = frames.shape[:-3], frames.shape[-3:]
        of_clips = hasattr(self.encoder, "temporal_kernel")
        time = frames.shape[-4] if self._over_time and batch else 1
        # One frame needs no other: all of them are shared out. With time a clip stays together.
        whole = with_logical_constraint(
            frames.reshape(-1, *((time,) if of_clips else ()), *size), "batch" if self._over_time else "image"
        )
        # Centred: a zero frame would otherwise be a zero input.
        x = self.encoder(whole * 2.0 - 1.0)
        return fsq.bound(x).reshape(*batch, *x.shape[-3:])

    def _decode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b H W 3"]:
        x = self.decoder(with_logical_constraint(features.reshape(-1, *features.shape[-3:]), "image"))
        return x.reshape(*features.shape[:-3], *x.shape[1:])
