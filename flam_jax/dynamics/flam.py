"""FLAM, the factored latent action model (stage 2): from features to the next features (the paper's figure).

features -> factorizer -> slots -> context stream -> inverse dynamics -> actions
                            |                                              |
                            +---------> forward dynamics <-----------------+
                                               |
features ----------------> aggregator <-- next slots (and what they are rendered to, with a renderer)
                               |
                         next features
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from flam_jax.axes import with_logical_constraint
from flam_jax.dynamics.aggregators import AGGREGATORS
from flam_jax.dynamics.factorizer import Factorizer
from flam_jax.dynamics.forward import ForwardDynamics
from flam_jax.dynamics.interface import Factors, ModelOutput, ModelSpec, Phase
from flam_jax.dynamics.inverse import ActionDistribution, InverseDynamics
from flam_jax.dynamics.outputs import check_frames, paper_losses
from flam_jax.dynamics.renderer import SlotRenderer
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.dynamics.slot_attention import SlotAttention
from flam_jax.dynamics.streams import ContextStream, empty_caches, over_factors

# Axis 2 of every array is the factor's, axis 1 of the caches; the context is the same for all factors. Made once: two
# models of the same fields are equal, and what is compiled for one serves the other.
FactoredInverseDynamics = over_factors(InverseDynamics, in_axes=(2, 2, None), out_axes=2)
FactoredForwardDynamics = over_factors(ForwardDynamics, in_axes=(2, 2, None, 1), out_axes=(2, 1))


class Flam(nn.Module):
    """The factored latent action model, a `LatentActionModel` made of its parts (`flam` makes the paper's).

    Attributes:
      num_factors: K.
      action_dim: size of one factor's latent action.
      factorizer: features -> slots.
      context: slots -> slots that are informed of each other and of the past.
      inverse_dynamics: slots, next slots, context -> posterior of the actions, for all factors.
      forward_dynamics: slots, actions, context -> next slots, for all factors.
      aggregator: features, next slots -> next features (`aggregators`).
      renderer: slots -> an embedding of every patch for the aggregator, and features (`renderer`); None: without.
      reconstruction_weight: of the squared error of the features to which slots are rendered.
    """

    num_factors: int
    action_dim: int
    # Modules; Any, as what is mapped over factors has no type of its own.
    factorizer: Any
    context: ContextStream
    inverse_dynamics: Any
    forward_dynamics: Any
    aggregator: Any
    renderer: Any = None
    reconstruction_weight: float = 0.0

    @property
    def spec(self) -> ModelSpec:
        """All parts are trained together, all of the time."""
        added = () if self.renderer is None else ("reconstruction",)
        everything = Phase("all", 0.0, 1.0, (), ("prediction", "kl", *added))
        return ModelSpec(self.num_factors, self.action_dim, "inferred", "features", (everything,))

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        annealing: SlotAnnealing | None = None,
        actions: Float[Array, "b t-1 k a"] | None = None,
        true_actions: Shaped[Array, "b t *n"] | None = None,
    ) -> ModelOutput:
        """See `LatentActionModel`."""
        del true_actions
        check_frames(features.shape[1])
        factors, _ = self.factorizer(features, None, annealing)
        # Every factor's stream may run on devices of its own; the context stream runs on all of them alike.
        slots = with_logical_constraint(factors.slots, "batch", None, "factor")
        context, _ = self.context(with_logical_constraint(slots[:, :-1], "batch"))
        context = with_logical_constraint(context, "batch")
        posterior = self.inverse_dynamics(slots[:, :-1], slots[:, 1:], context)
        if actions is None:
            actions = posterior.sample(self.make_rng("action")) if self.has_rng("action") else posterior.mean
        assert actions is not None
        actions_of_factors = with_logical_constraint(actions, "batch", None, "factor")
        next_slots, _ = self.forward_dynamics(slots[:, :-1], actions_of_factors, context, None)
        next_slots = with_logical_constraint(next_slots, "batch", None, "factor")
        slots_of_patches = with_logical_constraint(next_slots, "batch")
        next_features = self.aggregate(features[:, :-1], slots_of_patches, factors.attention[:, :-1])
        action_kl = posterior.kl()
        losses = paper_losses(features, next_features, action_kl)
        if self.renderer is not None:
            error = jnp.square(self.renderer(slots, features.shape[-3:])[1] - features).sum(axis=(-3, -2, -1)).mean()
            losses["reconstruction"] = self.reconstruction_weight * error
        return ModelOutput(
            slots=slots,
            attention=factors.attention,
            action_mean=posterior.mean,
            action_log_var=posterior.log_var,
            action_kl=action_kl,
            actions=actions,
            next_slots=next_slots,
            next_features=next_features,
            losses=losses,
        )

    def factorize(self, features: Float[Array, "b t h w c"]) -> Factors:
        """See `LatentActionModel`."""
        return self.factorizer(features)[0]

    def infer_actions(
        self, slots: Float[Array, "b t k d"], true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> ActionDistribution:
        """See `LatentActionModel`."""
        del true_actions
        check_frames(slots.shape[1])
        context, _ = self.context(slots[:, :-1])
        return self.inverse_dynamics(slots[:, :-1], slots[:, 1:], context)

    def predict_slots(
        self, slots: Float[Array, "b t k d"], actions: Float[Array, "b t k a"]
    ) -> Float[Array, "b t k d"]:
        """See `LatentActionModel`."""
        return self.forward_dynamics(slots, actions, self.context(slots)[0], None)[0]

    def aggregate(
        self,
        features: Float[Array, "b t h w c"],
        next_slots: Float[Array, "b t k d"],
        attention: Float[Array, "b t k h w"],
    ) -> Float[Array, "b t h w c"]:
        """See `LatentActionModel`."""
        last_features = jnp.concatenate([features[:, :1], features[:, :-1]], axis=1)
        return self.aggregator(features, last_features, next_slots, attention, self._rendered(next_slots, features))

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape k a"]:
        """Latent actions drawn from the prior N(0, I)."""
        return jax.random.normal(key, (*shape, self.num_factors, self.action_dim))

    def init_cache(self, features: Float[Array, "b h w c"]) -> dict[str, Any]:
        """See `LatentActionModel`. `last_features` are those of the frame before the one that is observed."""
        dim = self.factorizer.slot_attention.slot_dim
        batch = (features.shape[0], self.num_factors)
        return {
            "factorizer": self.factorizer.init_cache(features.shape[0]),
            "context": empty_caches(self.context, batch, dim),
            "forward": empty_caches(self.forward_dynamics, batch, dim),
            "last_features": features,
        }

    def observe_frame(
        self,
        cache: dict[str, Any],
        features: Float[Array, "b h w c"],
        predicted_slots: Float[Array, "b k d"] | None = None,
    ) -> tuple[dict[str, Any], Float[Array, "b k d"], Float[Array, "b k h w"]]:
        """See `LatentActionModel`."""
        del predicted_slots
        last_features = cache["last_features"]
        factors, factorizer = self.factorizer(features[:, None], cache["factorizer"], None, last_features)
        return {**cache, "factorizer": factorizer}, factors.slots[:, 0], factors.attention[:, 0]

    def predict(
        self,
        cache: dict[str, Any],
        features: Float[Array, "b h w c"],
        slots: Float[Array, "b k d"],
        masks: Float[Array, "b k h w"],
        actions: Float[Array, "b k a"],
    ) -> tuple[dict[str, Any], Float[Array, "b k d"], Float[Array, "b h w c"]]:
        """See `LatentActionModel`."""
        context, context_cache = self.context(slots[:, None], cache["context"])
        next_slots, forward = self.forward_dynamics(slots[:, None], actions[:, None], context, cache["forward"])
        next_slots = next_slots[:, 0]
        rendered = self._rendered(next_slots, features)
        next_features = self.aggregator(features, cache["last_features"], next_slots, masks, rendered)
        cache = {**cache, "context": context_cache, "forward": forward, "last_features": features}
        return cache, next_slots, next_features

    def _rendered(
        self, slots: Float[Array, "*b k d"], features: Float[Array, "*b h w c"]
    ) -> Float[Array, "*b h w d"] | None:
        """The embedding for the aggregator."""
        return None if self.renderer is None else self.renderer(slots, features.shape[-3:])[0]


def flam(
    num_factors: int,
    action_dim: int,
    *,
    model_dim: int = 256,
    num_blocks: int = 2,
    num_heads: int = 8,
    history: int = 5,
    num_iterations: int = 3,
    inverse_temperature: float = 4.0,
    positions: str = "readout",
    local_context: bool = False,
    inverse_frequency_power: float = 0.0,
    cosine_attention: bool = True,
    implicit_gradient: bool = True,
    aggregator: str = "additive",
    reconstruction_weight: float = 0.0,
    rematerialize: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Flam:
    """FLAM of one size everywhere.

    Args:
      num_factors: K.
      action_dim: size of one factor's latent action.
      model_dim: size of slots and of all streams.
      num_blocks: of each transformer.
      num_heads: of each attention but slot attention, which has one.
      history: frames that temporal attention sees, the current one included.
      num_iterations: of slot attention.
      inverse_temperature: see `SlotAttention`, as the next three and `cosine_attention`.
      positions: `readout`, `keys` or `features`.
      local_context: slots see neighbouring patches and the change since the last frame.
      inverse_frequency_power: of patches in readouts.
      cosine_attention: queries and keys of one length.
      implicit_gradient: differentiate the last iteration of slot attention only.
      aggregator: `additive`, `local` or `cross_attention`.
      reconstruction_weight: of the loss of the renderer; 0: there is none.
      rematerialize: recompute the aggregator's activations for the gradient instead of keeping them.
      dtype: compute type; parameters are float32.
    """
    block: dict[str, Any] = dict(num_blocks=num_blocks, num_heads=num_heads, dtype=dtype)
    slot_attention = SlotAttention(
        slot_dim=model_dim,
        inverse_temperature=inverse_temperature,
        positions=positions,
        local_context=local_context,
        inverse_frequency_power=inverse_frequency_power,
        cosine_attention=cosine_attention,
        dtype=dtype,
    )
    return Flam(
        num_factors=num_factors,
        action_dim=action_dim,
        factorizer=Factorizer(num_factors, slot_attention, num_iterations, num_heads, history, implicit_gradient),
        context=ContextStream(history=history, **block),
        inverse_dynamics=FactoredInverseDynamics(action_dim=action_dim, history=history, **block),
        forward_dynamics=FactoredForwardDynamics(history=history, **block),
        aggregator=AGGREGATORS[aggregator](model_dim=model_dim, rematerialize=rematerialize, **block),
        renderer=SlotRenderer(model_dim, num_heads, dtype) if reconstruction_weight else None,
        reconstruction_weight=reconstruction_weight,
    )
