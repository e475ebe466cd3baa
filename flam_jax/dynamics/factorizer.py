"""The factorizer: features of frames -> K slots per frame (PAPER: factorizer).

Learned slots compete for the patches of a frame by iterated slot attention (Locatello et al. 2020); in every iteration
each slot also attends causally to its own past values, which binds it to one entity over time.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.axes import place
from flam_jax.dynamics.attention import Mlp, TemporalAttention, empty_cache

# Added to every attention weight before the weights of a slot are normalized over the patches: a slot that wins no
# patch would otherwise divide zero by zero.
ATTENTION_FLOOR = 1e-6
# Features nearer than this look alike. Levels of a channel are farther apart than that up to 8 levels.
LOOK_ALIKE_WIDTH = 0.25
# Rounds of `share_out`: one is not enough to part what five slots share evenly (docs/decisions/separation_penalty.md).
BALANCE_ROUNDS = 4


@flax.struct.dataclass
class Factors:
    """Slots and where they look."""

    slots: Float[Array, "b t k d"]
    attention: Float[Array, "b t k h w"]  # sums to 1 over k


@flax.struct.dataclass
class Competition:
    """How slots compete for patches. Training anneals it; inference has full sharpness and nothing of the rest.

    Slot attention has many stable ways to share out contents in which an entity stays with the background. It is
    started soft and with noise, so that it can still change its mind.

    Attributes:
      sharpness: factor on the attention logits, which are cosines times the root of d.
      query_noise: added to the queries, the same in all frames and iterations of an example.
      balance: how much less a slot bids for what is unlike the rest of what it holds, or does not go on from what it
        held (`share_out`). At 0 that does not matter: two entities may stay in one slot while others are empty, or one
        with a background that slots share, and one that turns may go to another slot. None is that without the work.
        The frames of a call count: the first has none before it, with a cache too.
    """

    sharpness: Float[Array, " b"]
    query_noise: Float[Array, "b k d"]
    balance: Float[Array, ""] | None = None


def alikeness(features: Float[Array, "b t h w c"], others: Float[Array, "b t h w c"]) -> Float[Array, "b t h*w h*w"]:
    """How alike patches look, from 0 to 1: those of `features` on axis 2, those of `others` on axis 3.

    Of a frame and itself, summed over one axis: for every patch, how many patches look like it, itself included.
    """
    b, t, h, w, c = features.shape
    x, y = (jax.lax.stop_gradient(z).reshape(b, t, h * w, c) for z in (features, others))
    # |x - y|² = |x|² + |y|² - 2xy: a product of matrices instead of all differences.
    size = lambda z: jnp.square(z).sum(axis=-1)  # noqa: E731
    distance = size(x)[..., :, None] + size(y)[..., None, :] - 2 * jnp.einsum("btnc,btmc->btnm", x, y)
    return jnp.exp(-distance / (2 * LOOK_ALIKE_WIDTH**2))


def continuity(before: Float[Array, "b t h w c"], features: Float[Array, "b t h w c"]) -> Float[Array, "b t h*w h*w"]:
    """How well a patch (axis 3) goes on with one of the frame before (axis 2), from 0 to 1.

    Fully where it looks like it, or lies on it or next to it: an entity that turns looks otherwise, but is near.
    """
    h, w = features.shape[2:4]
    near = jnp.kron(_adjacent(h), _adjacent(w))
    return 1 - (1 - alikeness(before, features)) * (1 - near)


class Factorizer(nn.Module):
    """Iterated slot attention with causal temporal attention.

    Slots compete for contents: keys say what a patch holds, and where it lies a slot is told last, when the competition
    is over, so that it follows a content wherever it goes. `position_in_keys` lets slots compete for places too, which
    scenes with many look-alikes need. Where an entity covers several patches and moves by less than one, none of them
    keeps its content: with `local_context` the content of a patch takes in what lies around it, in no order, and what
    changed since the last frame, which tells what moves from a background that looks like it.

    Of a place slots read two coordinates, in which a step is the same change everywhere.

    A content counts in what a slot reads by the `rarity`-th power of its rarity in the frame: at 1 every content counts
    alike however many patches show it, at 0 every patch does. An entity of one patch that shares a slot with a
    background of fifty is drowned otherwise, and so is the gradient that would part the two.

    The last iteration alone is differentiated (implicit slot attention, Chang et al. 2022), the learned initial slots
    keep their gradient.
    """

    num_factors: int
    slot_dim: int
    num_iterations: int
    num_heads: int
    history: int
    attention_sharpness: float
    position_in_keys: bool = False
    local_context: bool = False
    rarity: float = 0.0
    dtype: DTypeLike = jnp.float32

    def setup(self):
        dense = lambda bias=True: nn.Dense(self.slot_dim, use_bias=bias, dtype=self.dtype)  # noqa: E731
        self.initial_slots = self.param("initial_slots", nn.initializers.normal(1.0), (self.num_factors, self.slot_dim))
        self.content = nn.Sequential([dense(), nn.gelu, dense()])
        if self.local_context:
            self.surroundings = dense(False)
        self.content_norm = nn.LayerNorm(dtype=self.dtype)
        self.key, self.query = dense(False), dense(False)
        # Of queries and keys the direction counts: else they grow and make the competition final long before
        # `Competition.sharpness` does, with an entity still in the background's slot.
        self.direction = nn.RMSNorm(use_scale=False, dtype=self.dtype)
        self.read = dense()
        # A straight road into the slots: the place of an entity must not get lost in the gates of the iterations.
        self.read_last = dense()
        # No bias: it would move the logits of all slots alike, which the softmax over slots does not see.
        self.slot_norm = nn.LayerNorm(use_bias=False, dtype=self.dtype)
        self.update = nn.GRUCell(self.slot_dim, dtype=self.dtype)
        self.time_norm = nn.LayerNorm(dtype=self.dtype)
        self.time = TemporalAttention(self.num_heads, self.history, self.dtype)
        self.mlp_norm = nn.LayerNorm(dtype=self.dtype)
        self.mlp = Mlp(self.dtype)

    def init_cache(self, batch: tuple[int, ...]) -> Any:
        """Before the first frame: one cache per iteration."""
        shape = (*batch, self.num_factors)
        make = lambda: empty_cache(shape, self.history, self.num_heads, self.slot_dim, self.dtype)  # noqa: E731
        return [make() for _ in range(self.num_iterations)]

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        cache: Any = None,
        competition: Competition | None = None,
        last_features: Float[Array, "b h w c"] | None = None,
    ) -> tuple[Factors, Any]:
        """All frames at once; with `cache`, the frames that follow those in the cache.

        Args:
          features: of the frames.
          cache: from `init_cache` or the last call.
          competition: how slots compete, as annealed in training; by default `attention_sharpness` without noise.
          last_features: of the frame before these; by default nothing changed at the first of these.

        Returns:
          Slots with their attention, and the new cache.
        """
        b, t, h, w, _ = features.shape
        first = features[:, :1] if last_features is None else last_features[:, None]
        before = jnp.concatenate([first, features[:, :-1]], axis=1)
        seen = jnp.concatenate([features, features - before], axis=-1) if self.local_context else features
        content = self.content(place(seen.astype(self.dtype), "batch", None, "patch"))
        if self.local_context:
            content = content + self.surroundings(blurred(nn.gelu(content)))
        content = place(self.content_norm(content).reshape(b, t, h * w, -1), "batch", None, "patch")
        named = _beside(content, position_codes(h, w)) if self.position_in_keys else content
        keys = self.direction(self.key(named))
        # The place is as long as the contents, whose mean square is 1: two numbers beside dozens would be drowned at
        # first, and predictions would come late.
        values = _beside(content, (self.slot_dim / 2) ** 0.5 * coordinates(h, w))
        sharpness = jnp.full((b,), self.attention_sharpness) if competition is None else competition.sharpness
        scale = (sharpness / self.slot_dim**0.5)[:, None, None, None]
        noise = balance = None
        if competition is not None:
            noise, balance = competition.query_noise[:, None].astype(self.dtype), competition.balance
        weight = alike = goes_on = None
        if self.rarity > 0 or balance is not None:
            alike = alikeness(features, features)
        if alike is not None and self.rarity > 0:
            weight = alike.sum(axis=-1)[:, :, None] ** -self.rarity
        if balance is not None:
            goes_on = continuity(before, features)
        patches = Patches(keys, values, weight, alike, goes_on)
        slots, attention, cache = self.compete(patches, Bidding(scale, noise, balance), cache)
        return Factors(slots, attention.reshape(b, t, -1, h, w)), cache

    def compete(
        self,
        patches: "Patches",
        bidding: "Bidding",
        cache: Any,
    ) -> tuple[Float[Array, "b t k d"], Float[Array, "b t k n"], Any]:
        """Slots of all frames, which start from the learned ones and attend to their own past in every iteration."""
        initial = self.initial_slots.astype(self.dtype)
        slots = jnp.broadcast_to(initial, (*patches.keys.shape[:2], *initial.shape))
        new_cache = []
        attention = readout = None
        for iteration in range(self.num_iterations):
            if iteration == self.num_iterations - 1 and iteration > 0:
                slots = implicit(slots, initial)
            slots, attention, readout = self.bid(slots, patches, bidding)
            past, layer_cache = self.time(
                self.time_norm(slots).swapaxes(1, 2), None if cache is None else cache[iteration]
            )
            new_cache.append(layer_cache)
            slots = slots + past.swapaxes(1, 2)
            slots = slots + self.mlp(self.mlp_norm(slots))
        assert attention is not None
        return slots + self.read_last(readout), attention, None if cache is None else new_cache

    def bid(
        self,
        slots: Float[Array, "b t k d"],
        patches: "Patches",
        bidding: "Bidding",
        held_before: Float[Array, "b 1 k n"] | None = None,
    ) -> tuple[Float[Array, "b t k d"], Float[Array, "b t k n"], Float[Array, "b t k v"]]:
        """One round of slot attention: updated slots, attention, and what each slot has read.

        With `held_before`, what slots held in the frame before these (`Patches.counted`), for the balance.
        """
        queries = self.query(self.slot_norm(slots))
        if bidding.noise is not None:
            queries = queries + bidding.noise
        logits = jnp.einsum("btkd,btnd->btkn", self.direction(queries), patches.keys)
        attention = share_out(logits.astype(jnp.float32) * bidding.scale, patches, bidding.balance, held_before)
        read = normalize_over_patches(patches.counted(attention))
        readout = jnp.einsum("btkn,btnv->btkv", read.astype(self.dtype), patches.values)
        # A slot that knew where its content lies would bid by it, and hand an entity on to another slot on its way.
        known = readout if self.position_in_keys else readout[..., : self.slot_dim]
        slots, _ = self.update(slots, self.read(known))
        return slots, attention, readout


@flax.struct.dataclass
class Patches:
    """What slots compete for: no array types here, jax maps over it with placeholders."""

    keys: Any  # f[b t n d]
    values: Any  # f[b t n v]: what slots read, the content first and the place last
    weight: Any  # f32[b t 1 n] or None: how much a patch counts in what a slot reads
    alike: Any  # f32[b t n n] or None: `alikeness` in the frame, for the balance
    goes_on: Any  # f32[b t n n] or None: `continuity` from the frame before, for the balance

    def counted(self, attention: Float[Array, "b t k n"]) -> Float[Array, "b t k n"]:
        """How much slots hold of every patch, a whole content being 1 (as far as `weight` goes)."""
        return attention if self.weight is None else attention * self.weight


@flax.struct.dataclass
class Bidding:
    """How slots bid in every iteration; no array types here either."""

    scale: Any  # f32[b 1 1 1]: of the logits, which are d times cosines
    noise: Any  # f[b 1 k d] or None: of the queries
    balance: Any  # f32[] or None: `Competition.balance`


def share_out(
    logits: Float[Array, "b t k n"],
    patches: "Patches",
    balance: Float[Array, ""] | None,
    held_before: Float[Array, "b 1 k n"] | None = None,
) -> Float[Array, "b t k n"]:
    """Which slots hold a patch, summing to 1 over k.

    In balance, contents push each other out of a slot: what a slot bids for a patch is divided by (1 + u)^balance,
    where u counts the contents that it holds and that look unlike the patch, and those it held in the frame before and
    that do not go on in the patch. So a slot that holds one content and follows it, or nothing, bids for that as it
    likes. Slots that share contents evenly have the same values, bid the same, and would go on so; in balance the least
    preference grows until each holds less to mix. And an entity that turns and looks otherwise stays in its slot, which
    is what slots learn from then.

    What a slot holds follows from the bids and the bids from what it holds: rounds go on from one to the other, each
    half of the way, towards where both agree (mean field).

    Args:
      logits: what slots bid.
      patches: what they bid for.
      balance: as in `Competition`.
      held_before: what slots held in the frame before these (`Patches.counted`); nothing by default.
    """
    attention = jax.nn.softmax(logits, axis=2)
    if balance is None:
        return attention
    first = jnp.zeros_like(logits[:, :1]) if held_before is None else held_before
    handicap = jnp.zeros_like(logits)
    for _ in range(BALANCE_ROUNDS):
        held = patches.counted(attention)
        last = jnp.concatenate([first, held[:, :-1]], axis=1)
        others = _unlike(held, patches.alike) + _unlike(last, patches.goes_on)
        handicap = 0.5 * (handicap + balance * jnp.log1p(others))
        attention = jax.nn.softmax(logits - handicap, axis=2)
    return attention


def _unlike(held: Float[Array, "b t k n"], alike: Float[Array, "b t n n"]) -> Float[Array, "b t k n"]:
    """Of every patch of the last axis, how much a slot holds that is unlike it."""
    return jnp.maximum(held.sum(axis=-1, keepdims=True) - jnp.einsum("btkn,btnm->btkm", held, alike), 0.0)


def implicit(slots: Float[Array, "b t k d"], initial: Float[Array, "*#b k d"]) -> Float[Array, "b t k d"]:
    """The value of `slots`, the gradient of `initial`: the fixed point is not differentiated (Chang et al. 2022)."""
    return jax.lax.stop_gradient(slots) + (initial - jax.lax.stop_gradient(initial))


def normalize_over_patches(attention: Float[Array, "*b k n"]) -> Float[Array, "*b k n"]:
    """Weights with which each slot averages the patches: they sum to 1 over n."""
    attention = attention + ATTENTION_FLOOR
    return attention / attention.sum(axis=-1, keepdims=True)


def blurred(x: Float[Array, "*b h w d"]) -> Float[Array, "*b h w d"]:
    """A mean of the 5x5 values around each, the near ones weighing more, fewer at the edges."""
    rows, columns = (_blur_matrix(n).astype(x.dtype) for n in x.shape[-3:-1])
    return jnp.einsum("hi,...ijd,wj->...hwd", rows, x, columns)


def _blur_matrix(n: int) -> Float[Array, "n n"]:
    near = _adjacent(n)
    mean = near / near.sum(axis=1, keepdims=True)
    return mean @ mean


def _adjacent(n: int) -> Float[Array, "n n"]:
    """1 for a place in a row, itself and its neighbours."""
    return jnp.eye(n, k=-1) + jnp.eye(n) + jnp.eye(n, k=1)


def position_codes(h: int, w: int) -> Float[Array, "h w h+w+2"]:
    """Row and column of every patch, one-hot side by side, and as coordinates; each part has a mean square of 1.

    For what must name a patch exactly.
    """
    rows = jnp.broadcast_to(jnp.eye(h)[:, None] * h**0.5, (h, w, h))
    columns = jnp.broadcast_to(jnp.eye(w)[None] * w**0.5, (h, w, w))
    return jnp.concatenate([rows, columns, coordinates(h, w)], axis=-1)


def coordinates(h: int, w: int) -> Float[Array, "h w 2"]:
    """Row and column of every patch as numbers with a mean of 0 and a mean square of 1 (0 where there is one alone).

    A step is the same difference wherever it is taken (as in Locatello et al. 2020).
    """
    return jnp.stack(jnp.meshgrid(_evenly_spaced(h), _evenly_spaced(w), indexing="ij"), axis=-1)


def _evenly_spaced(n: int) -> Float[Array, " n"]:
    centred = jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2
    return centred / jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(centred))), 0.5)


def _beside(content: Float[Array, "b t n d"], where: Float[Array, "h w p"]) -> Float[Array, "b t n d+p"]:
    """What patches hold, and where they lie."""
    flat = where.reshape(-1, where.shape[-1]).astype(content.dtype)
    return jnp.concatenate([content, jnp.broadcast_to(flat, (*content.shape[:2], *flat.shape))], axis=-1)
