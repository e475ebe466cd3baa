"""Monolithic latent action models: one action for the whole frame (PAPER: what was compared).

The whole frame's features are the one slot (k = 1, d = h w c), so these models are `LatentActionModel`s too. Both
streams are FLAM's context stream, with patches in place of factors: attention over patches, causal over time.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from flam_jax.baselines.codebook import Codebook, CodeDistribution
from flam_jax.baselines.true_actions import TrueActions
from flam_jax.dynamics.aggregators import SMALL
from flam_jax.dynamics.interface import ActionPosterior, Factors, ModelOutput, ModelSpec, Phase
from flam_jax.dynamics.inverse import ActionDistribution, gaussian
from flam_jax.dynamics.outputs import check_frames, paper_losses
from flam_jax.dynamics.positions import position_codes
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.dynamics.streams import ContextStream, empty_caches


class InferredActions(nn.Module):
    """The latent action between two frames, inferred by a spatio-temporal transformer on patches.

    Attributes:
      action_dim: size of the latent action.
      num_codes: of a codebook that the action is snapped to (Genie); None: a Gaussian with a KL penalty (AdaWorld).
      model_dim, num_blocks, num_heads, history, rematerialize, dtype: of the stream, see `monolithic`.
    """

    action_dim: int
    num_codes: int | None
    model_dim: int
    num_blocks: int
    num_heads: int
    history: int
    rematerialize: bool = False
    dtype: DTypeLike = jnp.float32

    source = "inferred"

    @property
    def added_loss_names(self) -> tuple[str, ...]:
        """What `added_losses` holds."""
        return () if self.num_codes is None else ("codebook",)

    def setup(self):
        self.inverse_content = nn.Dense(self.model_dim, dtype=self.dtype)
        self.inverse_position = nn.Dense(self.model_dim, dtype=self.dtype)
        self.inverse_dynamics = ContextStream(
            self.num_blocks, self.num_heads, self.history, self.dtype, self.rematerialize
        )
        # One more token a frame asks all patches for the action that led there.
        self.question = self.param("question", nn.initializers.normal(0.02), (self.model_dim,))
        if self.num_codes is None:
            self.posterior = nn.Dense(2 * self.action_dim, dtype=self.dtype)
        else:
            self.encoding = nn.Dense(self.action_dim, dtype=self.dtype)
            self.codebook = Codebook(self.num_codes, self.action_dim)

    def __call__(
        self, features: Float[Array, "b t h w c"], true_actions: Shaped[Array, "b t *n"] | None
    ) -> ActionDistribution | CodeDistribution:
        """Posterior over the actions that lead to frame 1 and those after it, shape b t-1 1 a."""
        del true_actions
        last = jnp.concatenate([features[:, :1], features[:, :-1]], axis=1)
        seen = jnp.concatenate([features, features - last], axis=-1)
        tokens = patch_tokens(seen, self.inverse_content, self.inverse_position)
        question = jnp.broadcast_to(self.question.astype(tokens.dtype), (*tokens.shape[:2], 1, self.model_dim))
        answers = self.inverse_dynamics(jnp.concatenate([question, tokens], axis=2))[0][:, 1:, :1]
        return gaussian(self.posterior(answers)) if self.num_codes is None else self.codebook(self.encoding(answers))

    def added_losses(self, posterior: Any, key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
        """Of a codebook, its own loss."""
        return {} if self.num_codes is None else {"codebook": self.codebook.loss(posterior.encodings, key)}

    def extras(self, posterior: Any) -> dict[str, Array]:
        """Of a codebook, the numbers of the codes."""
        return {} if self.num_codes is None else {"action_codes": posterior.index}

    def sample_prior(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape a"]:
        """From N(0, I), or a code of the book."""
        if self.num_codes is None:
            return jax.random.normal(key, (*shape, self.action_dim))
        return self.codebook.sample(key, shape)


class Monolithic(nn.Module):
    """One action a frame, which a spatio-temporal transformer on patches makes the next frame with.

    Attributes:
      action_model: where the action comes from: `InferredActions` or `TrueActions`. Its parameters lie beside those of
        this module.
      model_dim: of the stream.
      forward_dynamics: the stream of the patches.
      grid: rows and columns of patches.
      feature_dim: c.
    """

    action_model: Any
    model_dim: int
    forward_dynamics: ContextStream
    grid: tuple[int, int]
    feature_dim: int

    def setup(self):
        nn.share_scope(self, self.action_model)
        dtype = self.forward_dynamics.dtype
        self.content, self.position = nn.Dense(self.model_dim, dtype=dtype), nn.Dense(self.model_dim, dtype=dtype)
        self.action = nn.Dense(self.model_dim, use_bias=False, dtype=dtype)
        self.change = nn.Dense(self.feature_dim, kernel_init=SMALL, dtype=dtype)

    @property
    def spec(self) -> ModelSpec:
        """All parts are trained together, all of the time."""
        actions = self.action_model
        everything = Phase("all", 0.0, 1.0, (), ("prediction", "kl", *actions.added_loss_names))
        return ModelSpec(1, actions.action_dim, actions.source, "features", (everything,))

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        annealing: SlotAnnealing | None = None,
        actions: Float[Array, "b t-1 1 a"] | None = None,
        true_actions: Shaped[Array, "b t *n"] | None = None,
    ) -> ModelOutput:
        """See `LatentActionModel`; there are no slots to anneal. A codebook learns where actions are sampled."""
        del annealing
        check_frames(features.shape[1])
        posterior = self.action_model(features, true_actions)
        added = {}
        if actions is None and self.has_rng("action"):
            key = self.make_rng("action")
            actions = posterior.sample(key)
            added = self.action_model.added_losses(posterior, key)
        actions = posterior.mean if actions is None else actions
        assert actions is not None
        slots = as_slot(features)
        next_slots = self.predict_slots(slots[:, :-1], actions)
        next_features, action_kl = self._as_features(next_slots), posterior.kl()
        return ModelOutput(
            slots=slots,
            attention=whole_frame(features),
            action_mean=posterior.mean,
            action_log_var=posterior.log_var,
            action_kl=action_kl,
            actions=actions,
            next_slots=next_slots,
            next_features=next_features,
            losses=paper_losses(features, next_features, action_kl) | added,
            extras=self.action_model.extras(posterior),
        )

    def factorize(self, features: Float[Array, "b t h w c"]) -> Factors:
        """The frame as one slot, which attends to all of it."""
        return Factors(as_slot(features), whole_frame(features))

    def infer_actions(
        self, slots: Float[Array, "b t 1 d"], true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> ActionPosterior:
        """See `LatentActionModel`."""
        check_frames(slots.shape[1])
        return self.action_model(self._as_features(slots), true_actions)

    def predict_slots(
        self, slots: Float[Array, "b t 1 d"], actions: Float[Array, "b t 1 a"]
    ) -> Float[Array, "b t 1 d"]:
        """The next frame's features, as one slot, for all t at once."""
        return as_slot(self._predict(self._as_features(slots), actions, None)[0])

    def aggregate(
        self,
        features: Float[Array, "b t h w c"],
        next_slots: Float[Array, "b t 1 d"],
        attention: Float[Array, "b t 1 h w"],
    ) -> Float[Array, "b t h w c"]:
        """The next frame's features: the one slot holds them."""
        del features, attention
        return self._as_features(next_slots)

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape 1 a"]:
        """See `LatentActionModel`."""
        return self.action_model.sample_prior(key, (*shape, 1))

    def init_cache(self, features: Float[Array, "b h w c"]) -> Any:
        """See `LatentActionModel`."""
        b, h, w, _ = features.shape
        return empty_caches(self.forward_dynamics, (b, h * w), self.model_dim)

    def observe_frame(
        self, cache: Any, features: Float[Array, "b h w c"], predicted_slots: Float[Array, "b 1 d"] | None = None
    ) -> tuple[Any, Float[Array, "b 1 d"], Float[Array, "b 1 h w"]]:
        """See `LatentActionModel`."""
        del predicted_slots
        return cache, as_slot(features), whole_frame(features)

    def predict(
        self,
        cache: Any,
        features: Float[Array, "b h w c"],
        slots: Float[Array, "b 1 d"],
        masks: Float[Array, "b 1 h w"],
        actions: Float[Array, "b 1 a"],
    ) -> tuple[Any, Float[Array, "b 1 d"], Float[Array, "b h w c"]]:
        """See `LatentActionModel`."""
        del slots, masks
        predicted, cache = self._predict(features[:, None], actions[:, None], cache)
        return cache, as_slot(predicted[:, 0]), predicted[:, 0]

    def _predict(
        self, features: Float[Array, "b t h w c"], actions: Float[Array, "b t 1 a"], cache: Any
    ) -> tuple[Float[Array, "b t h w c"], Any]:
        tokens = patch_tokens(features, self.content, self.position)
        tokens = tokens + self.action(actions.astype(tokens.dtype))
        tokens, cache = self.forward_dynamics(tokens, cache)
        return features + self.change(tokens).astype(jnp.float32).reshape(features.shape), cache

    def _as_features(self, slots: Float[Array, "*b 1 d"]) -> Float[Array, "*b h w c"]:
        return slots.reshape(*slots.shape[:-2], *self.grid, self.feature_dim)


def monolithic(
    grid: tuple[int, int],
    feature_dim: int,
    *,
    action_dim: int = 0,
    num_codes: int | None = None,
    actors_and_choices: tuple[int, int] | None = None,
    model_dim: int = 256,
    num_blocks: int = 2,
    num_heads: int = 8,
    history: int = 5,
    rematerialize: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Monolithic:
    """AdaWorld; with `num_codes` Genie; with `actors_and_choices` the model that is given the true actions.

    Args:
      grid: rows and columns of patches.
      feature_dim: c.
      action_dim: size of the latent action, where it is inferred.
      num_codes: of the codebook that the action is snapped to; None: a Gaussian.
      actors_and_choices: how many actors' actions are given, and how many actions each has.
      model_dim: of both streams.
      num_blocks: of each stream.
      num_heads: of each attention.
      history: frames that temporal attention sees, the current one included.
      rematerialize: recompute the streams' activations for the gradient instead of keeping them.
      dtype: compute type; parameters are float32.
    """
    stream: dict[str, Any] = dict(
        num_blocks=num_blocks, num_heads=num_heads, history=history, rematerialize=rematerialize, dtype=dtype
    )
    if actors_and_choices is None:
        action_model = InferredActions(action_dim, num_codes, model_dim, **stream)
    else:
        action_model = TrueActions(*actors_and_choices)
    return Monolithic(action_model, model_dim, ContextStream(**stream), grid, feature_dim)


def patch_tokens(
    features: Float[Array, "b t h w n"], content: nn.Dense, position: nn.Dense
) -> Float[Array, "b t h*w d"]:
    """One token a patch: its embedded content and its embedded position."""
    b, t, h, w, _ = features.shape
    dtype = content.dtype
    tokens = content(features.astype(dtype)).reshape(b, t, h * w, -1)
    return tokens + position(position_codes(h, w).astype(dtype)).reshape(1, 1, h * w, -1)


def as_slot(features: Float[Array, "*b h w c"]) -> Float[Array, "*b 1 d"]:
    """The features of a frame as its one slot: d = h w c."""
    return features.reshape(*features.shape[:-3], 1, -1)


def whole_frame(features: Float[Array, "*b h w c"]) -> Float[Array, "*b 1 h w"]:
    """The mask of the one slot: it takes all patches."""
    return jnp.ones((*features.shape[:-3], 1, *features.shape[-3:-1]))
