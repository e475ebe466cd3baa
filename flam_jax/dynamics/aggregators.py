"""Aggregators: predicted slots change the current features into the next (PAPER: aggregator).

All have one signature, `(features, last_features, next_slots, attention, rendered) -> next features`:

    features f[*b h w c]: z_t.           next_slots f[*b k d]: ŝ_{t+1}.
    last_features f[*b h w c]: z_{t-1}; z_t itself at the first frame.
    attention f[*b k h w]: of the slots in frame t.
    rendered f[*b h w d]: the embedding of ŝ_{t+1} from `renderer`; None where the model has none.
    Result f[*b h w c]: ẑ_{t+1}, not quantized, a residual on z_t.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.axes import with_logical_constraint
from flam_jax.dynamics.attention import Attention, Mlp, maybe_remat
from flam_jax.dynamics.positions import gaussian_prior, position_codes

# At first the prediction is "nothing changes", nearly. With weights of the usual size the first steps are spent on
# silencing a random change of every patch, and the slots are silenced with it: on Procgen they never came back.
SMALL = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
# Of the Gaussian prior at first, in standard deviations of the patches' coordinates: a sixth of the frame.
INITIAL_SIGMA = 0.6


class SlotCrossAttention(nn.Module):
    """Patches attend to slots, with a null slot and a Gaussian spatial prior.

    A learned null slot lets a patch read nothing. Every head has a center that is a linear function of the slot, and a
    logit that falls with the squared distance of the patch from it. So an entity is written into the patch that it is
    about to enter, which no query of the patch's current content could know, and the same change of its slot moves it
    by one patch wherever it is.

    The names of the parameters are part of the format of checkpoints.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w d"], slots: Float[Array, "*b k d"]
    ) -> tuple[Float[Array, "*b h w d"], Float[Array, "*b heads h w k+1"]]:
        """The readouts, and the weights of the slots with those of the null slot behind them."""
        *_, h, w, dim = x.shape
        heads = (self.num_heads, dim // self.num_heads)
        null = self.param("null", nn.initializers.normal(0.02), (2, 1, *heads)).astype(self.dtype)
        q = nn.DenseGeneral(heads, dtype=self.dtype, name="query")(x)
        k = nn.DenseGeneral(heads, dtype=self.dtype, name="key")(slots)
        v = nn.DenseGeneral(heads, dtype=self.dtype, name="value")(slots)
        k = jnp.concatenate([k, jnp.broadcast_to(null[0], (*k.shape[:-3], 1, *heads))], axis=-3)
        v = jnp.concatenate([v, jnp.broadcast_to(null[1], (*v.shape[:-3], 1, *heads))], axis=-3)
        center = nn.DenseGeneral((self.num_heads, 2), dtype=self.dtype, name="call")(slots).astype(jnp.float32)
        log_sigma = self.param("log_reach", nn.initializers.constant(math.log(INITIAL_SIGMA)), (self.num_heads,))
        prior = jnp.moveaxis(gaussian_prior(center, log_sigma, h, w), -4, -1)  # *b heads h w k
        prior = jnp.pad(prior, [(0, 0)] * (prior.ndim - 1) + [(0, 1)])
        logits = jnp.einsum("...hwnd,...knd->...nhwk", q, k) / heads[1] ** 0.5 + prior
        weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        y = jnp.einsum("...nhwk,...knd->...hwnd", weights.astype(self.dtype), v)
        return nn.DenseGeneral(dim, axis=(-2, -1), dtype=self.dtype, name="out")(y), weights


class Neighbourhood(nn.Module):
    """A linear map of the 3x3 patches around each.

    A convolution, written as a product of matrices: within a loop or a branch, where later prediction passes run, XLA
    runs convolutions ten times slower on a CPU.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w d"]:
        *_, h, w, _ = x.shape
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
        around = jnp.concatenate([padded[..., i : i + h, j : j + w, :] for i in range(3) for j in range(3)], axis=-1)
        return nn.Dense(self.features, dtype=self.dtype)(around)


class NeighbourMlp(nn.Module):
    """A perceptron on the 3x3 patches around each, as a residual branch without normalization.

    What moves leaves one patch and enters the next, so a patch depends on its neighbours.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w d"]) -> Float[Array, "*b h w d"]:
        dim = x.shape[-1]
        y = nn.gelu(Neighbourhood(dim, self.dtype)(nn.gelu(x)))
        # Starting at zero makes every block the identity at first: deep stacks then train without normalization.
        return nn.Dense(dim, dtype=self.dtype, kernel_init=nn.initializers.zeros)(y)


class AdditiveAggregator(nn.Module):
    """ẑ_{t+1} = z_t + write(ŝ_{t+1}) + erase(z_t, gate(ŝ_{t+1})): slots carry what changes, z_t carries what stays.

    What a patch reads from the slots, and what that writes into it, do not depend on its current content; of the slots
    the erase depends on one number, the write gate. So a patch that one entity leaves as another enters it is the sum
    of two changes that are seen all the time. In the paper a patch queries with its content, and the change is a
    function of both (`CrossAttentionAggregator`).
    """

    model_dim: int
    num_blocks: int
    num_heads: int
    rematerialize: bool = False  # recompute a block's activations for the gradient instead of keeping them
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "*b h w c"],
        last_features: Float[Array, "*b h w c"],
        next_slots: Float[Array, "*b k d"],
        attention: Float[Array, "*b k h w"],
        rendered: Float[Array, "*b h w d"] | None = None,
    ) -> Float[Array, "*b h w c"]:
        """See the module; `last_features` and `attention` are not used."""
        del last_features, attention
        *batch, h, w, c = features.shape
        dense = lambda size, name, **options: nn.Dense(size, dtype=self.dtype, name=name, **options)  # noqa: E731
        norm = lambda x: nn.LayerNorm(dtype=self.dtype)(x)  # noqa: E731
        position = dense(self.model_dim, "position")(position_codes(h, w).astype(self.dtype))
        slots = norm(next_slots.astype(self.dtype))
        attend, process = maybe_remat((SlotCrossAttention, Mlp), self.rematerialize)
        patches = ("batch", *(None,) * (len(batch) - 1), "patch")
        write_features = jnp.broadcast_to(position, (*batch, *position.shape))
        if rendered is not None:
            write_features = write_features + dense(self.model_dim, "rendered")(rendered)
        for block in range(self.num_blocks):
            x = write_features = with_logical_constraint(write_features, *patches)
            x = x + attend(self.num_heads, self.dtype, name=f"slots_{block}")(norm(x), slots)[0]
            write_features = x + process(self.dtype, name=f"mlp_{block}")(norm(x))
        write_features = norm(write_features)
        write = dense(c, "put", kernel_init=SMALL)(write_features)
        write_gate = nn.sigmoid(dense(1, "something_comes")(write_features))
        content = with_logical_constraint(features.astype(self.dtype), *patches)
        content = dense(self.model_dim, "content")(content)
        content += jnp.broadcast_to(position, content.shape)
        gate_embedding = dense(self.model_dim, "told")(write_gate)
        erase = dense(c, "taken_off", kernel_init=SMALL)(nn.gelu(content + gate_embedding))
        return features + (write + erase).astype(jnp.float32)


class LocalAggregator(nn.Module):
    """ẑ_{t+1} = z_t + change(z_t, ŝ_{t+1}), where things move by less than a patch.

    What is about to enter a patch stands beside it then, and what continues needs no action: a patch sees the 3x3
    patches around it, in this frame and the last. That alone predicts so well that slots may never be read; so a patch
    also gets the predicted slot that holds it.
    """

    model_dim: int
    num_blocks: int
    num_heads: int
    rematerialize: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "*b h w c"],
        last_features: Float[Array, "*b h w c"],
        next_slots: Float[Array, "*b k d"],
        attention: Float[Array, "*b k h w"],
        rendered: Float[Array, "*b h w d"] | None = None,
    ) -> Float[Array, "*b h w c"]:
        """See the module."""
        *_, h, w, c = features.shape
        position = nn.Dense(self.model_dim, dtype=self.dtype, name="position")(position_codes(h, w).astype(self.dtype))
        seen = jnp.concatenate([features, features - last_features], axis=-1).astype(self.dtype)
        x = Neighbourhood(self.model_dim, self.dtype, name="content")(seen)
        x += jnp.broadcast_to(position, x.shape)
        slots = nn.LayerNorm(dtype=self.dtype)(next_slots.astype(self.dtype))
        holder = jnp.einsum("...khw,...kd->...hwd", attention.astype(self.dtype), slots)
        x = x + nn.Dense(self.model_dim, dtype=self.dtype, name="holder")(holder)
        if rendered is not None:
            x = x + nn.Dense(self.model_dim, dtype=self.dtype, name="rendered")(rendered)
        attend, process = maybe_remat((SlotCrossAttention, NeighbourMlp), self.rematerialize)
        before = (None,) * (x.ndim - 4)  # axes between the batch and the rows of patches
        for block in range(self.num_blocks):
            x = with_logical_constraint(x, "batch", *before, "patch")
            read = attend(self.num_heads, self.dtype, name=f"slots_{block}")
            x = x + read(nn.LayerNorm(dtype=self.dtype)(x), slots)[0]
            x = x + process(self.dtype, name=f"mlp_{block}")(x)
        change = nn.Dense(c, kernel_init=SMALL, dtype=self.dtype, name="change")(nn.gelu(x))
        return features + change.astype(jnp.float32)


class CrossAttentionAggregator(nn.Module):
    """ẑ_{t+1} = z_t + change(z_t, ŝ_{t+1}), as the paper describes it.

    Queries are the current features with their positions, keys and values the predicted slots, in transformer blocks
    of cross-attention and perceptron. The paper does not state initial values: the change starts small here as in the
    other aggregators.
    """

    model_dim: int
    num_blocks: int
    num_heads: int
    rematerialize: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "*b h w c"],
        last_features: Float[Array, "*b h w c"],
        next_slots: Float[Array, "*b k d"],
        attention: Float[Array, "*b k h w"],
        rendered: Float[Array, "*b h w d"] | None = None,
    ) -> Float[Array, "*b h w c"]:
        """See the module; `last_features` and `attention` are not used."""
        del last_features, attention
        *batch, h, w, c = features.shape
        norm = lambda x: nn.LayerNorm(dtype=self.dtype)(x)  # noqa: E731
        position = nn.Dense(self.model_dim, dtype=self.dtype, name="position")(position_codes(h, w).astype(self.dtype))
        x = nn.Dense(self.model_dim, dtype=self.dtype, name="content")(features.astype(self.dtype))
        x += jnp.broadcast_to(position, x.shape)
        if rendered is not None:
            x = x + nn.Dense(self.model_dim, dtype=self.dtype, name="rendered")(rendered)
        x = x.reshape(*batch, h * w, self.model_dim)
        slots = norm(next_slots.astype(self.dtype))
        attend, process = maybe_remat((Attention, Mlp), self.rematerialize)
        for block in range(self.num_blocks):
            x = with_logical_constraint(x, "batch", *(None,) * (len(batch) - 1), "patch")
            x = x + attend(self.num_heads, self.dtype, name=f"slots_{block}")(norm(x), slots)
            x = x + process(self.dtype, name=f"mlp_{block}")(norm(x))
        change = nn.Dense(c, kernel_init=SMALL, dtype=self.dtype, name="change")(norm(x))
        return features + change.reshape(features.shape).astype(jnp.float32)


AGGREGATORS = {
    "additive": AdditiveAggregator,
    "local": LocalAggregator,
    "cross_attention": CrossAttentionAggregator,
}
