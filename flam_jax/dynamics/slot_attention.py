"""Slot attention (Locatello et al. 2020): one pure iteration, its repetition, and the parameters it needs.

Where it departs from the paper's is in `grouping.py`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.axes import with_logical_constraint
from flam_jax.dynamics import grouping
from flam_jax.dynamics.positions import append_positions, coordinates, position_codes, smooth
from flam_jax.dynamics.schedules import SlotAnnealing

# Added to every attention weight before the weights of a slot are normalized over the patches: a slot that wins no
# patch would otherwise divide zero by zero.
ATTENTION_FLOOR = 1e-6


@flax.struct.dataclass
class SlotInputs:
    """What slots attend to: n patches a frame. No array types here, jax maps over it with placeholders.

    Attributes:
      keys: f[b t n d].
      values: f[b t n v], content first, then positions.
      weights: f32[b t 1 n] of patches in the readout (`grouping.inverse_frequency_weights`), or None.
      affinity: f32[b t n n], `grouping.feature_affinity` in the frame, or None without separation penalty.
      continuation: f32[b t n n], `grouping.temporal_affinity` from the frame before, or None.
    """

    keys: Any
    values: Any
    weights: Any = None
    affinity: Any = None
    continuation: Any = None


def attention_step(
    queries: Float[Array, "b t k d"],
    inputs: SlotInputs,
    inverse_temperature: Float[Array, " b"],
    separation_penalty: Float[Array, ""] | None = None,
    previous_assignment: Float[Array, "b 1 k n"] | None = None,
) -> tuple[Float[Array, "b t k n"], Float[Array, "b t k v"]]:
    """One attention of slots to patches, in which slots compete.

        A_kn = softmax_k(τ q_k·k_n / √d),    r_k = Σ_n (A_kn w_n / Σ_m A_km w_m) v_n,

    with a softmax over slots, not patches. With a separation penalty A is `grouping.balanced_assignment` of the same
    logits.

    Args:
      queries: q, of the slots.
      inputs: keys k, values v and weights w of the patches.
      inverse_temperature: τ.
      separation_penalty: see `grouping`.
      previous_assignment: what slots held in the frame before these, for the penalty.

    Returns:
      The attention A, which sums to 1 over k, and the readouts r.
    """
    scale = (inverse_temperature / queries.shape[-1] ** 0.5)[:, None, None, None]
    logits = jnp.einsum("btkd,btnd->btkn", queries, inputs.keys).astype(jnp.float32) * scale
    if separation_penalty is None:
        attention = jax.nn.softmax(logits, axis=2)
    else:
        attention = grouping.balanced_assignment(
            logits,
            separation_penalty,
            weights=inputs.weights,
            affinity=inputs.affinity,
            continuation=inputs.continuation,
            previous_assignment=previous_assignment,
        )
    read = grouping.weighted_assignment(attention, inputs.weights) + ATTENTION_FLOOR
    read = read / read.sum(axis=-1, keepdims=True)
    return attention, jnp.einsum("btkn,btnv->btkv", read.astype(inputs.values.dtype), inputs.values)


def iterate(
    step: Callable[[Array, int], tuple[Array, Array, Array]],
    slots: Float[Array, "b t k d"],
    initial: Float[Array, "*#b k d"],
    num_iterations: int,
    implicit_gradient: bool,
) -> tuple[Float[Array, "b t k d"], Float[Array, "b t k n"], Float[Array, "b t k v"]]:
    """Repeats `step(slots, iteration) -> (slots, attention, readout)`.

    Args:
      step: one iteration.
      slots: before the first one.
      initial: what they were made of; gradients reach it.
      num_iterations: at least 1.
      implicit_gradient: differentiate the last iteration only, around the fixed point that the others approach (Chang
        et al. 2022); `initial` gets the gradient of the slots that it starts from.

    Returns:
      What the last iteration returned.
    """
    attention = readout = None
    for iteration in range(num_iterations):
        if implicit_gradient and 0 < iteration == num_iterations - 1:
            origin = jnp.broadcast_to(initial, slots.shape)
            slots = jax.lax.stop_gradient(slots) + (origin - jax.lax.stop_gradient(origin))
        slots, attention, readout = step(slots, iteration)
    assert attention is not None
    assert readout is not None
    return slots, attention, readout


class SlotAttention(nn.Module):
    """The learned maps of slot attention: features to keys and values, slots to queries, readouts to slots.

    A factorizer shares its scope with this module, so the parameters lie side by side.

    Attributes:
      slot_dim: d.
      inverse_temperature: τ of inference.
      positions: where positions enter. `readout`: added to the slots after the last iteration. `keys`: in keys and in
        every readout as well. `features`: beside the features, before keys and values, and nowhere else.
      local_context: the content of a patch takes in what lies around it, in no order, and what changed since the last
        frame, which tells what moves from a background that looks like it.
      inverse_frequency_power: see `grouping`.
      cosine_attention: queries and keys have length √d. Else they grow, and attention is final long before the
        annealing of the temperature is over.
      dtype: compute type.
    """

    slot_dim: int
    inverse_temperature: float = 4.0
    positions: str = "readout"
    local_context: bool = False
    inverse_frequency_power: float = 0.0
    cosine_attention: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self):
        dense = lambda bias=True: nn.Dense(self.slot_dim, use_bias=bias, dtype=self.dtype)  # noqa: E731
        self.content = nn.Sequential([dense(), nn.gelu, dense()])
        if self.local_context:
            self.surroundings = dense(False)
        self.content_norm = nn.LayerNorm(dtype=self.dtype)
        self.key, self.query = dense(False), dense(False)
        if self.cosine_attention:
            self.direction = nn.RMSNorm(use_scale=False, dtype=self.dtype)
        self.read = dense()
        if self.positions != "features":
            self.read_last = dense()
        # No bias: it would move the logits of all slots alike, which the softmax over slots does not see.
        self.slot_norm = nn.LayerNorm(use_bias=False, dtype=self.dtype)
        self.update = nn.GRUCell(self.slot_dim, dtype=self.dtype)

    def inputs(
        self,
        features: Float[Array, "b t h w c"],
        last_features: Float[Array, "b h w c"] | None,
        annealing: SlotAnnealing | None,
    ) -> SlotInputs:
        """Keys, values and weights of all patches; `last_features` as in `Factorizer`."""
        b, t, h, w, _ = features.shape
        first = features[:, :1] if last_features is None else last_features[:, None]
        before = jnp.concatenate([first, features[:, :-1]], axis=1)
        seen = jnp.concatenate([features, features - before], axis=-1) if self.local_context else features
        if self.positions == "features":  # the first linear map adds an embedding of the position to one of the content
            codes = position_codes(h, w)
            seen = jnp.concatenate([seen, jnp.broadcast_to(codes, (b, t, *codes.shape))], axis=-1)
        content = self.content(with_logical_constraint(seen.astype(self.dtype), "batch", None, "patch"))
        if self.local_context:
            content = content + self.surroundings(smooth(nn.gelu(content)))
        content = self.content_norm(content).reshape(b, t, h * w, -1)
        values = content = with_logical_constraint(content, "batch", None, "patch")
        keys = self._normalize(
            self.key(append_positions(content, position_codes(h, w)) if self.positions == "keys" else content)
        )
        if self.positions != "features":
            # Positions are as long as contents, whose mean square is 1: two numbers beside dozens would be drowned at
            # first, and predictions would come late.
            values = append_positions(content, (self.slot_dim / 2) ** 0.5 * coordinates(h, w))
        weights = affinity = continuation = None
        separation = annealing is not None and annealing.separation_penalty is not None
        if self.inverse_frequency_power > 0 or separation:
            affinity = grouping.feature_affinity(features, features)
        if affinity is not None and self.inverse_frequency_power > 0:
            weights = grouping.inverse_frequency_weights(affinity, self.inverse_frequency_power)
        if separation:
            continuation = grouping.temporal_affinity(before, features)
        return SlotInputs(keys, values, weights, affinity, continuation)

    def __call__(
        self,
        slots: Float[Array, "b t k d"],
        inputs: SlotInputs,
        annealing: SlotAnnealing | None,
        previous_assignment: Float[Array, "b 1 k n"] | None = None,
    ) -> tuple[Float[Array, "b t k d"], Float[Array, "b t k n"], Float[Array, "b t k v"]]:
        """One iteration: updated slots, attention and readouts; arguments as `attention_step`."""
        queries = self.query(self.slot_norm(slots))
        penalty = None
        if annealing is None:
            inverse_temperature = jnp.full(slots.shape[:1], self.inverse_temperature)
        else:
            inverse_temperature, penalty = annealing.inverse_temperature, annealing.separation_penalty
            queries = queries + annealing.query_noise[:, None].astype(self.dtype)
        attention, readout = attention_step(
            self._normalize(queries), inputs, inverse_temperature, penalty, previous_assignment
        )
        # The position in a readout would enter the next query, and slots would follow positions.
        known = readout[..., : self.slot_dim] if self.positions == "readout" else readout
        slots, _ = self.update(slots, self.read(known))
        return slots, attention, readout

    def add_positions(
        self, slots: Float[Array, "b t k d"], readout: Float[Array, "b t k v"]
    ) -> Float[Array, "b t k d"]:
        """Adds what was read last, with its position; a direct path past the gates of the iterations."""
        return slots if self.positions == "features" else slots + self.read_last(readout)

    def _normalize(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.direction(x) if self.cosine_attention else x
