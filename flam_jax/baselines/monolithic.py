"""Monolithic latent action models: one action for the whole frame (PAPER: what was compared).

The whole frame's features are the one slot (k = 1, d = h w c), so these models answer the same methods as FLAM. Both
streams are FLAM's context stream, with patches in place of factors: attention over patches, causal over time.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from flam_jax.baselines.codebook import Codebook, CodeDistribution
from flam_jax.dynamics.aggregator import SMALL
from flam_jax.dynamics.attention import empty_cache
from flam_jax.dynamics.factorizer import Competition, Factors, position_codes
from flam_jax.dynamics.flam import FlamOutput, StepOutput, check_frames
from flam_jax.dynamics.inverse import ActionDistribution, gaussian
from flam_jax.dynamics.streams import ContextStream


class Monolithic(nn.Module):
    """One latent action a frame, inferred and used by spatio-temporal transformers on patches.

    Attributes:
      grid: rows and columns of patches.
      feature_dim: c.
      action_dim: size of the latent action.
      bottleneck: `gaussian` with a KL penalty (AdaWorld), or `codebook` (Genie).
      num_codes: of the codebook.
      model_dim: of both streams.
      num_blocks: of each stream.
      num_heads: of each attention.
      history: frames that temporal attention sees, the current one included.
      rematerialize: compute what the streams' layers hold again for the gradient instead of keeping it.
      dtype: compute type; parameters are float32.
    """

    grid: tuple[int, int]
    feature_dim: int
    action_dim: int
    bottleneck: str
    num_codes: int = 8
    model_dim: int = 256
    num_blocks: int = 2
    num_heads: int = 8
    history: int = 5
    rematerialize: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.setup_inverse()
        self.content, self.position = self._dense(self.model_dim), self._dense(self.model_dim)
        self.action = self._dense(self.model_dim, use_bias=False)
        self.forward_dynamics = self._stream()
        self.change = self._dense(self.feature_dim, kernel_init=SMALL)

    def setup_inverse(self) -> None:
        """What infers the action between two frames."""
        self.inverse_content, self.inverse_position = self._dense(self.model_dim), self._dense(self.model_dim)
        # One more token a frame asks all patches for the action that led there.
        self.question = self.param("question", nn.initializers.normal(0.02), (self.model_dim,))
        self.inverse_dynamics = self._stream()
        if self.bottleneck == "codebook":
            self.encoding = self._dense(self.action_dim)
            self.codebook = Codebook(self.num_codes, self.action_dim)
        else:
            self.posterior = self._dense(2 * self.action_dim)

    def _dense(self, size: int, **changes: Any) -> nn.Dense:
        return nn.Dense(size, dtype=self.dtype, **changes)

    def _stream(self) -> ContextStream:
        return ContextStream(self.num_blocks, self.num_heads, self.history, self.dtype, self.rematerialize)

    @property
    def num_factors(self) -> int:
        """One slot holds everything."""
        return 1

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        competition: Competition | None = None,
        actions: Float[Array, "b t-1 1 a"] | None = None,
    ) -> FlamOutput:
        """As `Flam`; `competition` is for slots and unused here. With an rng named `action` a codebook learns too."""
        del competition
        check_frames(features.shape[1])
        outputs = self._ask(features)
        posterior = self._bottleneck(outputs)
        auxiliary = jnp.zeros(())
        if actions is None:
            actions = posterior.mean
            if self.has_rng("action"):
                key = self.make_rng("action")
                actions = posterior.sample(key)
                if self.bottleneck == "codebook":
                    auxiliary = self.codebook.loss(outputs, key)
        slots = as_slot(features)
        next_slots = self.predict_slots(slots[:, :-1], actions)
        return FlamOutput(
            slots=slots,
            attention=whole_frame(features),
            action_mean=posterior.mean,
            action_log_var=posterior.log_var,
            action_kl=posterior.kl(),
            actions=actions,
            next_slots=next_slots,
            next_features=self._as_features(next_slots),
            auxiliary_loss=auxiliary,
            action_codes=posterior.index if isinstance(posterior, CodeDistribution) else None,
        )

    def factorize(self, features: Float[Array, "b t h w c"]) -> Factors:
        """The frame as one slot, which attends to all of it."""
        return Factors(as_slot(features), whole_frame(features))

    def infer_actions(self, slots: Float[Array, "b t 1 d"]) -> ActionDistribution | CodeDistribution:
        """Latent actions between consecutive frames, shape b t-1 1 a.

        Raises:
          ValueError: fewer than two frames.
        """
        check_frames(slots.shape[1])
        return self._bottleneck(self._ask(self._as_features(slots)))

    def predict_slots(
        self, slots: Float[Array, "b t 1 d"], actions: Float[Array, "b t 1 a"]
    ) -> Float[Array, "b t 1 d"]:
        """The next frame's features, as one slot, for all t at once."""
        features = self._as_features(slots)
        return as_slot(self._predict(features, actions, None)[0])

    def aggregate(
        self, features: Float[Array, "b t h w c"], next_slots: Float[Array, "b t 1 d"]
    ) -> Float[Array, "b t h w c"]:
        """The next frame's features: the one slot holds them."""
        del features
        return self._as_features(next_slots)

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape 1 a"]:
        """Latent actions drawn from the prior: N(0, I), or a code of the book."""
        shape = (*shape, 1)
        if self.bottleneck == "codebook":
            return self.codebook.sample(key, shape)
        return jax.random.normal(key, (*shape, self.action_dim))

    def init_cache(self, features: Float[Array, "b h w c"]) -> Any:
        """Caches before the first frame of `step`."""
        batch = (features.shape[0], self.grid[0] * self.grid[1])
        return [
            empty_cache(batch, self.history, self.num_heads, self.model_dim, self.dtype) for _ in range(self.num_blocks)
        ]

    def step(
        self, cache: Any, features: Float[Array, "b h w c"], actions: Float[Array, "b 1 a"]
    ) -> tuple[Any, StepOutput]:
        """Consumes frame t and the action taken there, predicts frame t + 1. Cost does not depend on t."""
        predicted, cache = self._predict(features[:, None], actions[:, None], cache)
        slots, next_slots, attention = as_slot(features), as_slot(predicted[:, 0]), whole_frame(features)
        return cache, StepOutput(slots, attention, next_slots, predicted[:, 0])

    def _ask(self, features: Float[Array, "b t h w c"]) -> Float[Array, "b t-1 1 n"]:
        """What the bottleneck gets, for the actions that lead to frame 1 and those after it."""
        last = jnp.concatenate([features[:, :1], features[:, :-1]], axis=1)
        tokens = self._tokens(jnp.concatenate([features, features - last], axis=-1), self.inverse_content)
        tokens = tokens + self._positions(self.inverse_position)
        question = jnp.broadcast_to(self.question.astype(self.dtype), (*tokens.shape[:2], 1, self.model_dim))
        answers = self.inverse_dynamics(jnp.concatenate([question, tokens], axis=2))[0][:, 1:, :1]
        return (self.encoding if self.bottleneck == "codebook" else self.posterior)(answers)

    def _bottleneck(self, outputs: Float[Array, "b t 1 n"]) -> ActionDistribution | CodeDistribution:
        return self.codebook(outputs) if self.bottleneck == "codebook" else gaussian(outputs)

    def _predict(
        self, features: Float[Array, "b t h w c"], actions: Float[Array, "b t 1 a"], cache: Any
    ) -> tuple[Float[Array, "b t h w c"], Any]:
        tokens = self._tokens(features, self.content) + self._positions(self.position)
        tokens = tokens + self.action(actions.astype(self.dtype))
        tokens, cache = self.forward_dynamics(tokens, cache)
        return features + self.change(tokens).astype(jnp.float32).reshape(features.shape), cache

    def _tokens(self, features: Float[Array, "b t h w n"], layer: nn.Module) -> Float[Array, "b t p d"]:
        return layer(features.astype(self.dtype)).reshape(*features.shape[:2], -1, self.model_dim)

    def _positions(self, layer: nn.Module) -> Float[Array, "p d"]:
        return layer(position_codes(*self.grid).astype(self.dtype)).reshape(-1, self.model_dim)

    def _as_features(self, slots: Float[Array, "*b 1 d"]) -> Float[Array, "*b h w c"]:
        return slots.reshape(*slots.shape[:-2], *self.grid, self.feature_dim)


def as_slot(features: Float[Array, "*b h w c"]) -> Float[Array, "*b 1 d"]:
    """The features of a frame as its one slot: d = h w c."""
    return features.reshape(*features.shape[:-3], 1, -1)


def whole_frame(features: Float[Array, "*b h w c"]) -> Float[Array, "*b 1 h w"]:
    """The mask of the one slot: it takes all patches."""
    return jnp.ones((*features.shape[:-3], 1, *features.shape[-3:-1]))
