"""FLAM, the factored latent action model (stage 2): the data's path from features to the next features."""

from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from flam_jax.axes import place
from flam_jax.dynamics.aggregator import Aggregator, LocalAggregator
from flam_jax.dynamics.attention import empty_cache
from flam_jax.dynamics.factorizer import Competition, Factorizer, Factors
from flam_jax.dynamics.forward import ForwardDynamics
from flam_jax.dynamics.inverse import ActionDistribution, InverseDynamics
from flam_jax.dynamics.streams import ContextStream, over_factors


@flax.struct.dataclass
class FlamOutput:
    """Everything one pass computes, for losses and figures."""

    slots: Float[Array, "b t k d"]
    attention: Float[Array, "b t k h w"]
    action_mean: Float[Array, "b t-1 k a"]
    action_log_var: Float[Array, "b t-1 k a"]
    action_kl: Float[Array, "b t-1 k"]  # nats
    actions: Float[Array, "b t-1 k a"]
    next_slots: Float[Array, "b t-1 k d"]
    next_features: Float[Array, "b t-1 h w c"]
    auxiliary_loss: Float[Array, ""] | float = 0.0  # of models that are trained with more than prediction and KL
    slot_loss: Float[Array, ""] | float = 0.0  # of models that learn their slots apart from the prediction
    action_codes: Int[Array, "b t-1 k"] | None = None  # numbers of the codes, of models whose actions have a codebook


@flax.struct.dataclass
class StepOutput:
    """What one step of frame-by-frame inference gives."""

    slots: Float[Array, "b k d"]
    attention: Float[Array, "b k h w"]
    next_slots: Float[Array, "b k d"]
    next_features: Float[Array, "b h w c"]


class Flam(nn.Module):
    """The factored latent action model.

    Attributes:
      num_factors: K.
      action_dim: size of one factor's latent action.
      model_dim: size of slots and of all streams.
      num_blocks: of each transformer.
      num_heads: of each attention but slot attention, which has one.
      history: frames that temporal attention sees, the current one included.
      num_iterations: of slot attention.
      attention_sharpness: factor on the logits of slot attention.
      position_in_keys: let slots compete for places as well as for contents.
      local_context: let patches see their neighbours and what changed since the last frame.
      rarity: exponent with which rare contents count more in what slots read.
      rematerialize: compute what the aggregator's blocks hold again for the gradient instead of keeping it.
      dtype: compute type; parameters are float32.
    """

    num_factors: int
    action_dim: int
    model_dim: int = 256
    num_blocks: int = 2
    num_heads: int = 8
    history: int = 5
    num_iterations: int = 3
    attention_sharpness: float = 4.0
    position_in_keys: bool = False
    local_context: bool = False
    rarity: float = 0.0
    rematerialize: bool = False
    dtype: DTypeLike = jnp.float32

    # Ablations replace these. Axis 2 of every array is the factor's, axis 1 of the caches; the context is the same for
    # all factors.
    factorizer_type: ClassVar[Any] = Factorizer
    inverse_type: ClassVar[Any] = over_factors(InverseDynamics, in_axes=(2, 2, None), out_axes=2)
    forward_type: ClassVar[Any] = over_factors(ForwardDynamics, in_axes=(2, 2, None, 1), out_axes=(2, 1))

    def setup(self):
        block: dict[str, Any] = dict(num_blocks=self.num_blocks, num_heads=self.num_heads, dtype=self.dtype)
        self.factorizer = self.make_factorizer()
        self.context = ContextStream(history=self.history, **block)
        self.inverse_dynamics = self.inverse_type(action_dim=self.action_dim, history=self.history, **block)
        self.forward_dynamics = self.forward_type(history=self.history, **block)
        aggregator = LocalAggregator if self.local_context else Aggregator
        self.aggregator = aggregator(model_dim=self.model_dim, rematerialize=self.rematerialize, **block)

    def make_factorizer(self) -> Factorizer:
        """The factorizer of these fields, for `setup`."""
        return self.factorizer_type(
            num_factors=self.num_factors,
            slot_dim=self.model_dim,
            num_iterations=self.num_iterations,
            num_heads=self.num_heads,
            history=self.history,
            attention_sharpness=self.attention_sharpness,
            position_in_keys=self.position_in_keys,
            local_context=self.local_context,
            rarity=self.rarity,
            dtype=self.dtype,
        )

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        competition: Competition | None = None,
        actions: Float[Array, "b t-1 k a"] | None = None,
    ) -> FlamOutput:
        """Infers the actions between frames and predicts every frame but the first from the one before it.

        Args:
          features: tokenizer features of at least two consecutive frames.
          competition: see `Factorizer`.
          actions: predict with these instead of the inferred ones.

        Returns:
          All values of the pass. With an rng named `action` the actions are samples, else the means.

        Raises:
          ValueError: fewer than two frames.
        """
        check_frames(features.shape[1])
        factors, _ = self.factorizer(features, None, competition)
        # Every factor's stream may run on devices of its own; the context stream runs on all of them alike.
        slots = place(factors.slots, "batch", None, "factor")
        context = place(self.context(place(slots[:, :-1], "batch"))[0], "batch")
        posterior = self._infer(slots, context)
        if actions is None:
            actions = posterior.sample(self.make_rng("action")) if self.has_rng("action") else posterior.mean
        next_slots, _ = self.forward_dynamics(slots[:, :-1], place(actions, "batch", None, "factor"), context, None)
        next_slots = place(next_slots, "batch", None, "factor")
        next_features = self.aggregate(features[:, :-1], place(next_slots, "batch"), factors.attention[:, :-1])
        return FlamOutput(
            slots=slots,
            attention=factors.attention,
            action_mean=posterior.mean,
            action_log_var=posterior.log_var,
            action_kl=posterior.kl(),
            actions=actions,
            next_slots=next_slots,
            next_features=next_features,
        )

    def factorize(self, features: Float[Array, "b t h w c"]) -> Factors:
        """Slots and their attention."""
        return self.factorizer(features)[0]

    def infer_actions(self, slots: Float[Array, "b t k d"]) -> ActionDistribution:
        """Posterior over the latent actions between consecutive slots, shape b t-1 k a.

        Raises:
          ValueError: fewer than two frames.
        """
        check_frames(slots.shape[1])
        return self._infer(slots, self.context(slots[:, :-1])[0])

    def predict_slots(
        self, slots: Float[Array, "b t k d"], actions: Float[Array, "b t k a"]
    ) -> Float[Array, "b t k d"]:
        """ŝ_{t+1} from s_t and a_t, for all t at once."""
        return self.forward_dynamics(slots, actions, self.context(slots)[0], None)[0]

    def aggregate(
        self,
        features: Float[Array, "b t h w c"],
        next_slots: Float[Array, "b t k d"],
        attention: Float[Array, "b t k h w"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """ẑ_{t+1} from z_t and ŝ_{t+1}, for all t at once; not quantized.

        Args:
          features: z_t of consecutive frames.
          next_slots: ŝ_{t+1}.
          attention: of the slots in these frames. Without it the factorizer is asked, where it is of use
            (`local_context`).
        """
        if attention is None and self.local_context:
            attention = self.factorize(features).attention
        last_features = jnp.concatenate([features[:, :1], features[:, :-1]], axis=1)
        return self.aggregator(features, last_features, next_slots, attention)

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape k a"]:
        """Latent actions drawn from the prior N(0, I)."""
        return jax.random.normal(key, (*shape, self.num_factors, self.action_dim))

    def init_cache(self, features: Float[Array, "b h w c"]) -> dict[str, Any]:
        """Caches before the first frame of `step`, whose features are `features`."""
        batch = (features.shape[0], self.num_factors)
        make = lambda: empty_cache(batch, self.history, self.num_heads, self.model_dim, self.dtype)  # noqa: E731
        return {
            "factorizer": self.factorizer.init_cache(batch[:1]),
            "context": [make() for _ in range(self.num_blocks)],
            "forward": [make() for _ in range(self.num_blocks)],
            "last_features": features,
        }

    def step(
        self, cache: dict[str, Any], features: Float[Array, "b h w c"], actions: Float[Array, "b k a"]
    ) -> tuple[dict[str, Any], StepOutput]:
        """Consumes frame t and the action taken there, predicts frame t + 1. Cost does not depend on t.

        Calling it on the frames one after another equals one parallel pass over all of them.
        """
        last_features = cache["last_features"]
        factors, factorizer_cache = self.factorizer(features[:, None], cache["factorizer"], None, last_features)
        context, context_cache = self.context(factors.slots, cache["context"])
        next_slots, forward_cache = self.forward_dynamics(factors.slots, actions[:, None], context, cache["forward"])
        next_features = self.aggregator(features, last_features, next_slots[:, 0], factors.attention[:, 0])
        cache = {
            "factorizer": factorizer_cache,
            "context": context_cache,
            "forward": forward_cache,
            "last_features": features,
        }
        return cache, StepOutput(factors.slots[:, 0], factors.attention[:, 0], next_slots[:, 0], next_features)

    def _infer(self, slots: Float[Array, "b t k d"], context: Float[Array, "b t-1 k d"]) -> ActionDistribution:
        return self.inverse_dynamics(slots[:, :-1], slots[:, 1:], context)


def check_frames(frames: int) -> None:
    """Raises ValueError when no action lies between the frames."""
    if frames < 2:
        raise ValueError(f"latent actions lie between frames: expected at least 2 frames, got {frames}")
