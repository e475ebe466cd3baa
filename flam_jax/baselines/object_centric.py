"""Object-centric models: slots are learned first, by reconstruction, and frozen; then dynamics on them.

SlotFormer (Wu et al. 2023) predicts the slots without actions; PlaySlot (Villar-Corrales & Behnke 2025) with a latent
action a slot, a code of a book plus a continuous variation. The slots are those of SAVi (Kipf et al. 2022): those of a
frame start from the last frame's, and a decoder turns them back into features. SAVi's predictor, which lets the slots
attend to each other on the way to the next frame, is left out: with it they became alike and held no entity. The
decoder is not SAVi's, which lets every slot paint a whole frame: patches ask the slots
(docs/decisions/object_centric_baselines.md).

One module holds both parts. `FlamOutput.slot_loss` is the loss of the slots; nothing of the prediction reaches them,
and the training stage decides which of the two losses counts when.
"""

from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from flam_jax.baselines.ablations import CoupledForwardDynamics, RecurrentFactorizer
from flam_jax.baselines.codebook import Codebook
from flam_jax.dynamics.aggregator import SlotCrossAttention
from flam_jax.dynamics.attention import Mlp, empty_cache
from flam_jax.dynamics.factorizer import Competition, position_codes
from flam_jax.dynamics.flam import Flam, FlamOutput, StepOutput, check_frames
from flam_jax.dynamics.inverse import ActionDistribution
from flam_jax.dynamics.streams import ContextStream


class SlotMixerDecoder(nn.Module):
    """Patches ask slots what they show, each from its place (the slot mixer of Sajjadi et al. 2022)."""

    feature_dim: int
    grid: tuple[int, int]
    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, slots: Float[Array, "*b k d"]) -> Float[Array, "*b h w c"]:
        *batch, _, dim = slots.shape
        norm = lambda x: nn.LayerNorm(dtype=self.dtype)(x)  # noqa: E731
        codes = position_codes(*self.grid).astype(self.dtype)
        position = nn.Dense(dim, dtype=self.dtype, name="position")(codes)
        x = jnp.broadcast_to(position, (*batch, *position.shape))
        x = x + SlotCrossAttention(self.num_heads, self.dtype, name="slots")(norm(x), norm(slots.astype(self.dtype)))
        x = x + Mlp(self.dtype, name="mlp")(norm(x))
        return nn.Dense(self.feature_dim, dtype=self.dtype, name="out")(norm(x)).astype(jnp.float32)


@flax.struct.dataclass
class VariedCodes:
    """A code of the book and a Gaussian variation of it."""

    code: Any  # CodeDistribution
    variation: ActionDistribution

    @property
    def mean(self) -> Float[Array, "*b a"]:
        """Code and mean variation."""
        return self.code.mean + self.variation.mean

    @property
    def log_var(self) -> Float[Array, "*b a"]:
        """Of the variation."""
        return self.variation.log_var

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b a"]:
        """Code and sampled variation."""
        return self.code.mean + self.variation.sample(key)

    def kl(self) -> Float[Array, " *b"]:
        """KL of both parts from their priors, in nats."""
        return self.code.kl() + self.variation.kl()


@flax.struct.dataclass
class NoActions:
    """Of a model without actions: arrays of size 0."""

    mean: Float[Array, "*b 0"]

    @property
    def log_var(self) -> Float[Array, "*b 0"]:
        """Nothing."""
        return self.mean

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b 0"]:
        """Nothing."""
        del key
        return self.mean

    def kl(self) -> Float[Array, " *b"]:
        """0 nats."""
        return self.mean.sum(axis=-1)


class ObjectCentric(Flam, kw_only=True):
    """Slots learned by reconstruction, and dynamics on them; a latent action a slot, or none.

    Fields and methods are FLAM's, with an `action_dim` of 0 for a model without actions (SlotFormer).

    Attributes:
      grid: rows and columns of patches.
      feature_dim: c.
      num_codes: of the codebook.
    """

    grid: tuple[int, int]
    feature_dim: int
    num_codes: int = 8

    slot_parts: ClassVar[tuple[str, ...]] = ("factorizer", "decoder")  # what `slot_loss` trains, by its first name
    factorizer_type: ClassVar[Any] = RecurrentFactorizer
    forward_type: ClassVar[Any] = CoupledForwardDynamics

    def setup(self):
        block: dict[str, Any] = dict(
            num_blocks=self.num_blocks, num_heads=self.num_heads, history=self.history, dtype=self.dtype
        )
        self.factorizer = self.make_factorizer()
        self.decoder = SlotMixerDecoder(self.feature_dim, self.grid, self.num_heads, self.dtype)
        if self.action_dim:
            self.context = ContextStream(**block)
            # Encodings that are snapped to codes, and variations, side by side.
            self.inverse_dynamics = self.inverse_type(action_dim=2 * self.action_dim, **block)
            self.codebook = Codebook(self.num_codes, self.action_dim)
        self.forward_dynamics = self.forward_type(**block)

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        competition: Competition | None = None,
        actions: Float[Array, "b t-1 k a"] | None = None,
    ) -> FlamOutput:
        """As `Flam`."""
        check_frames(features.shape[1])
        factors, _ = self.factorizer(features, None, competition)
        error = jnp.square(self.decoder(factors.slots) - features).sum(axis=(-3, -2, -1)).mean()
        slots = jax.lax.stop_gradient(factors.slots)
        encodings, posterior = self._encode_actions(slots)
        auxiliary = jnp.zeros(())
        if actions is None:
            actions = posterior.mean
            if self.has_rng("action") and self.action_dim:
                sample_key, loss_key = jax.random.split(self.make_rng("action"))
                actions = posterior.sample(sample_key)
                auxiliary = self.codebook.loss(encodings, loss_key)
        next_slots = self.predict_slots(slots[:, :-1], actions)
        auxiliary = auxiliary + jnp.square(next_slots - slots[:, 1:]).sum(axis=(-2, -1)).mean()
        return FlamOutput(
            slots=slots,
            attention=factors.attention,
            action_mean=posterior.mean,
            action_log_var=posterior.log_var,
            action_kl=posterior.kl(),
            actions=actions,
            next_slots=next_slots,
            next_features=self._frozen_decoder(next_slots),
            auxiliary_loss=auxiliary,
            slot_loss=error,
            action_codes=posterior.code.index if isinstance(posterior, VariedCodes) else None,
        )

    def infer_actions(self, slots: Float[Array, "b t k d"]) -> VariedCodes | NoActions:
        """Latent actions between consecutive slots, shape b t-1 k a.

        Raises:
          ValueError: fewer than two frames.
        """
        check_frames(slots.shape[1])
        return self._encode_actions(slots)[1]

    def predict_slots(
        self, slots: Float[Array, "b t k d"], actions: Float[Array, "b t k a"]
    ) -> Float[Array, "b t k d"]:
        """ŝ_{t+1} from all s_t and a_t, for all t at once."""
        return self.forward_dynamics(slots, actions, None, None)[0]

    def aggregate(
        self, features: Float[Array, "b t h w c"], next_slots: Float[Array, "b t k d"]
    ) -> Float[Array, "b t h w c"]:
        """ẑ_{t+1} from ŝ_{t+1} alone: slots carry all of the frame."""
        del features
        return self.decoder(next_slots)

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape k a"]:
        """Latent actions drawn from the prior: a code of the book and a variation from N(0, I)."""
        shape = (*shape, self.num_factors)
        if not self.action_dim:
            return jnp.zeros((*shape, 0))
        first, second = jax.random.split(key)
        return self.codebook.sample(first, shape) + jax.random.normal(second, (*shape, self.action_dim))

    def init_cache(self, features: Float[Array, "b h w c"]) -> dict[str, Any]:
        """Caches before the first frame of `step`."""
        batch = (features.shape[0], self.num_factors)
        make = lambda: empty_cache(batch, self.history, self.num_heads, self.model_dim, self.dtype)  # noqa: E731
        return {
            "factorizer": self.factorizer.init_cache(batch[:1]),
            "forward": [make() for _ in range(self.num_blocks)],
            "last_features": features,
        }

    def step(
        self, cache: dict[str, Any], features: Float[Array, "b h w c"], actions: Float[Array, "b k a"]
    ) -> tuple[dict[str, Any], StepOutput]:
        """Consumes frame t and the actions taken there, predicts frame t + 1. Cost does not depend on t."""
        last_features = cache["last_features"]
        factors, factorizer_cache = self.factorizer(features[:, None], cache["factorizer"], None, last_features)
        next_slots, forward_cache = self.forward_dynamics(factors.slots, actions[:, None], None, cache["forward"])
        next_slots = next_slots[:, 0]
        output = StepOutput(factors.slots[:, 0], factors.attention[:, 0], next_slots, self.decoder(next_slots))
        return {"factorizer": factorizer_cache, "forward": forward_cache, "last_features": features}, output

    def imagine_slots(
        self, cache: dict[str, Any], slots: Float[Array, "b k d"], actions: Float[Array, "b k a"]
    ) -> tuple[dict[str, Any], Float[Array, "b k d"], Float[Array, "b h w c"]]:
        """As `step` for a frame that was imagined, of which the slots are at hand: both models roll out in them.

        Returns:
          The cache, with which no true frame can be consumed any more, and the next slots and features.
        """
        next_slots, forward_cache = self.forward_dynamics(slots[:, None], actions[:, None], None, cache["forward"])
        return {**cache, "forward": forward_cache}, next_slots[:, 0], self.decoder(next_slots[:, 0])

    def _encode_actions(self, slots: Float[Array, "b t k d"]) -> tuple[Array, VariedCodes | NoActions]:
        """Encodings before they are snapped to codes, and the distribution."""
        if not self.action_dim:
            none = jnp.zeros((slots.shape[0], slots.shape[1] - 1, self.num_factors, 0))
            return none, NoActions(none)
        context, _ = self.context(slots[:, :-1])
        both = self.inverse_dynamics(slots[:, :-1], slots[:, 1:], context)
        encodings, mean = jnp.split(both.mean, 2, axis=-1)
        variation = ActionDistribution(mean, both.log_var[..., self.action_dim :])
        return encodings, VariedCodes(self.codebook(encodings), variation)

    def _frozen_decoder(self, slots: Float[Array, "b t k d"]) -> Float[Array, "b t h w c"]:
        """Gradients reach the slots, not the decoder."""
        params = jax.lax.stop_gradient(self.decoder.variables["params"])
        return self.decoder.clone(parent=None).apply({"params": params}, slots)  # type: ignore  # an array
