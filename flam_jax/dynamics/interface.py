"""What a dynamics model offers, and its static facts.

Everything above `flam_jax.build` talks to a `LatentActionModel` and asks its `ModelSpec`; nothing asks for a class.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.struct
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from flam_jax.dynamics.schedules import SlotAnnealing


@dataclasses.dataclass(frozen=True)
class Phase:
    """A named training phase; those of a model follow each other from 0 to 1.

    Attributes:
      name: of the phase.
      start: share of training at which it begins.
      end: share of training at which it ends.
      parts: first names of the parameters that are trained in it, the others stay as they are; `()` trains all.
      losses: names of the losses that count in it.
    """

    name: str
    start: float
    end: float
    parts: tuple[str, ...]
    losses: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Static facts of a model.

    Attributes:
      num_factors: k; 1 for a monolithic model.
      action_dim: a, the size of one factor's latent action.
      action_source: `inferred` from frames, `given` (the data's true actions) or `none` (a = 0).
      rollout_space: a rollout goes on from predicted `features`, which are factorized again, or predicted `slots`.
      phases: of training, in order.
    """

    num_factors: int
    action_dim: int
    action_source: str
    rollout_space: str
    phases: tuple[Phase, ...]


@flax.struct.dataclass
class Factors:
    """Slots and the patches they attend to."""

    slots: Float[Array, "b t k d"]
    attention: Float[Array, "b t k h w"]  # sums to 1 over k


@runtime_checkable
class ActionPosterior(Protocol):
    """Distribution of latent actions between consecutive frames."""

    @property
    def mean(self) -> Float[Array, "*b a"]:
        """The mean, which is used where nothing is sampled."""
        ...

    @property
    def log_var(self) -> Float[Array, "*b a"]:
        """Log variance; minus infinity where there is none."""
        ...

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b a"]:
        """A reparameterized sample."""
        ...

    def kl(self) -> Float[Array, " *b"]:
        """KL divergence from the model's prior, in nats."""
        ...


@flax.struct.dataclass
class ModelOutput:
    """Everything one pass computes, for losses and figures.

    Attributes:
      losses: scalars by name: `prediction`, `kl`, and what a model adds.
      extras: further values by name that only some models have, such as `action_codes` i[b t-1 k] of a codebook.
    """

    slots: Float[Array, "b t k d"]
    attention: Float[Array, "b t k h w"]
    action_mean: Float[Array, "b t-1 k a"]
    action_log_var: Float[Array, "b t-1 k a"]
    action_kl: Float[Array, "b t-1 k"]  # nats
    actions: Float[Array, "b t-1 k a"]
    next_slots: Float[Array, "b t-1 k d"]
    next_features: Float[Array, "b t-1 h w c"]
    losses: Mapping[str, Float[Array, ""]]
    extras: Mapping[str, Shaped[Array, "..."]] = flax.struct.field(default_factory=dict)


@runtime_checkable
class LatentActionModel(Protocol):
    """A linen module with these methods; they are called through `apply(variables, ..., method=name)`.

    Frame by frame, a model is used as

        cache = init_cache(features_0)
        cache, slots, masks = observe_frame(cache, features_0)
        cache, next_slots, next_features = predict(cache, features_0, slots, masks, actions_0)
        cache, slots, masks = observe_frame(cache, features_1)          # of a true frame
        cache, slots, masks = observe_frame(cache, quantized, next_slots)  # of a predicted one

    in constant time and memory per frame. On true frames it equals the parallel pass.
    """

    @property
    def spec(self) -> ModelSpec:
        """Static facts, known without parameters."""
        ...

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        annealing: SlotAnnealing | None = None,
        actions: Float[Array, "b t-1 k a"] | None = None,
        true_actions: Shaped[Array, "b t *n"] | None = None,
    ) -> ModelOutput:
        """Infers the actions between frames and predicts every frame but the first from the one before it.

        Args:
          features: tokenizer features of at least two consecutive frames.
          annealing: of slot attention in training; by default what inference uses.
          actions: predict with these instead of the inferred ones.
          true_actions: numbers of the actions taken in the frames, of a model whose `action_source` is `given`; others
            take no notice.

        Returns:
          All values of the pass. With an rng named `action` the actions are samples, else the means.

        Raises:
          ValueError: fewer than two frames; true actions that are needed are missing.
        """
        ...

    def factorize(self, features: Float[Array, "b t h w c"]) -> Factors:
        """Slots and their attention, of all frames at once."""
        ...

    def infer_actions(
        self, slots: Float[Array, "b t k d"], true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> ActionPosterior:
        """Posterior over the latent actions between consecutive slots, shape b t-1 k a; arguments as the call.

        Raises:
          ValueError: as the call.
        """
        ...

    def predict_slots(
        self, slots: Float[Array, "b t k d"], actions: Float[Array, "b t k a"]
    ) -> Float[Array, "b t k d"]:
        """ŝ_{t+1} from s_t and a_t, for all t at once."""
        ...

    def aggregate(
        self,
        features: Float[Array, "b t h w c"],
        next_slots: Float[Array, "b t k d"],
        attention: Float[Array, "b t k h w"],
    ) -> Float[Array, "b t h w c"]:
        """ẑ_{t+1} from z_t, ŝ_{t+1} and the attention of the slots in frame t; for all t at once, not quantized."""
        ...

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape k a"]:
        """Latent actions drawn from the prior."""
        ...

    def init_cache(self, features: Float[Array, "b h w c"]) -> Any:
        """The memory before the first frame, whose features are `features`: a pytree of constant size."""
        ...

    def observe_frame(
        self, cache: Any, features: Float[Array, "b h w c"], predicted_slots: Float[Array, "b k d"] | None = None
    ) -> tuple[Any, Float[Array, "b k d"], Float[Array, "b k h w"]]:
        """Takes in the next frame.

        Args:
          cache: from `init_cache` or `predict`.
          features: of the frame.
          predicted_slots: ŝ of the frame, where it is a prediction. A model whose `rollout_space` is `slots` goes on
            from them, the others factorize the features.

        Returns:
          The new cache, the frame's slots and their masks.
        """
        ...

    def predict(
        self,
        cache: Any,
        features: Float[Array, "b h w c"],
        slots: Float[Array, "b k d"],
        masks: Float[Array, "b k h w"],
        actions: Float[Array, "b k a"],
    ) -> tuple[Any, Float[Array, "b k d"], Float[Array, "b h w c"]]:
        """The frame after the one that was observed last.

        Args:
          cache: from `observe_frame`.
          features: of the frame that was observed.
          slots: its slots.
          masks: of its slots.
          actions: taken in it.

        Returns:
          The new cache, the next slots, and the next features, not quantized.
        """
        ...
