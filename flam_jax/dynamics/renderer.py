"""The renderer: slots drawn on the patches around them. The paper does not have it.

What a slot adds to a patch depends on how far the patch lies from a point that is a linear function of the slot: where
an entity is and what it looks like are told apart, and the same slot moved draws the same thing elsewhere. Rendered
slots of the current frame are trained to be its features, so that slots come to hold what their entity looks like and
where it is to less than a patch; the aggregator is given the rendered slots of the next frame. Without it the patches
around tell most of what comes, slots are little read, and what one entity hides of another is not known.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.dynamics.attention import Mlp
from flam_jax.dynamics.positions import gaussian_prior, patches_from

# Of the Gaussian prior at first, in standard deviations of the patches' coordinates: a sixth of the frame.
INITIAL_SIGMA = 0.6
# Periods of the waves that encode a distance, in patches.
PERIODS = (2.0, 4.0, 8.0, 16.0)
# Patches within which something is near.
NEAR = 4.0
BASIS_WIDTH = 32


class DistanceBasis(nn.Module):
    """Learned functions of a distance along one axis in patches, `size` for every head."""

    size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, distance: Float[Array, "*b n k heads"]) -> Float[Array, "*b n k heads d"]:
        distance = distance[..., None]
        waves = [wave(2 * jnp.pi / period * distance) for period in PERIODS for wave in (jnp.sin, jnp.cos)]
        near = jnp.exp(-jnp.square(distance / NEAR))
        x = jnp.concatenate([*waves, jnp.clip(distance / NEAR, -2, 2), near], axis=-1).astype(self.dtype)
        return nn.Dense(self.size, dtype=self.dtype)(nn.gelu(nn.Dense(BASIS_WIDTH, dtype=self.dtype)(x)))


class SlotRenderer(nn.Module):
    """Slots to an embedding of every patch, and to features.

        e_n = Σ_k A_kn v_k ⊙ (1 + ρ(y_n - y_k) ⊙ κ(x_n - x_k)),

    in every head, with learned functions ρ and κ of the distances of patch n from the point (x_k, y_k) of slot k. The
    weights A are a softmax over slots, with nothing as one more choice, of a logit of the slot and a Gaussian prior.
    """

    model_dim: int
    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, slots: Float[Array, "*b k d"], shape: tuple[int, int, int]
    ) -> tuple[Float[Array, "*b h w d"], Float[Array, "*b h w c"]]:
        """Embedding and features of a frame of the shape h, w, c."""
        h, w, c = shape
        heads = (self.num_heads, self.model_dim // self.num_heads)
        slots = nn.LayerNorm(dtype=self.dtype)(slots.astype(self.dtype))
        dense = lambda size, name: nn.DenseGeneral(size, dtype=self.dtype, name=name)(slots)  # noqa: E731
        point = dense((self.num_heads, 2), "call").astype(jnp.float32)
        log_sigma = self.param("log_reach", nn.initializers.constant(math.log(INITIAL_SIGMA)), (self.num_heads,))
        prior = jnp.moveaxis(gaussian_prior(point, log_sigma, h, w), -4, -1)  # *b heads h w k
        presence = jnp.swapaxes(dense(self.num_heads, "presence"), -1, -2).astype(jnp.float32)  # *b heads k
        logits = prior + jnp.broadcast_to(presence[..., None, None, :], prior.shape)
        nothing = jnp.zeros((*logits.shape[:-1], 1))
        weights = jax.nn.softmax(jnp.concatenate([logits, nothing], axis=-1))[..., :-1].astype(self.dtype)
        value = dense(heads, "value")
        rows, columns = (
            DistanceBasis(heads[1], self.dtype, name=name)(distance)
            for name, distance in zip(("rows", "columns"), patches_from(point, h, w), strict=True)
        )
        columns = columns * jnp.broadcast_to(value[..., None, :, :, :], columns.shape)
        x = jnp.einsum("...nhwk,...hknd,...wknd->...hwnd", weights, rows, columns)
        x = x + jnp.einsum("...nhwk,...knd->...hwnd", weights, value)
        x = nn.DenseGeneral(self.model_dim, axis=(-2, -1), dtype=self.dtype, name="out")(x)
        x = x + Mlp(self.dtype, name="mlp")(nn.LayerNorm(dtype=self.dtype)(x))
        x = nn.LayerNorm(dtype=self.dtype)(x)
        return x, nn.Dense(c, dtype=self.dtype, name="features")(x).astype(jnp.float32)
