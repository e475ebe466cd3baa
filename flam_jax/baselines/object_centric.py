"""Object-centric models: slots are learned first, by reconstruction, and frozen; then dynamics on them.

SlotFormer (Wu et al. 2023) predicts the slots without actions; PlaySlot (Villar-Corrales & Behnke 2025) with a latent
action a slot, a code of a book plus a continuous variation. The slots are those of SAVi (Kipf et al. 2022): those of a
frame start from the last frame's, and a decoder turns them back into features. SAVi's predictor, which lets the slots
attend to each other on the way to the next frame, is left out: with it they became alike and held no entity. The
decoder is not SAVi's, which lets every slot paint a whole frame: patches attend to the slots.

One module holds both parts. The loss `slots` trains the slots; nothing of the prediction reaches them, and the phases
of the spec say which losses count when.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from flam_jax.baselines.ablations import CoupledForwardDynamics
from flam_jax.baselines.recurrent import RecurrentFactorizer, recurrent_factorizer
from flam_jax.baselines.slot_actions import NoActions, SlotActions
from flam_jax.dynamics.aggregators import SlotCrossAttention
from flam_jax.dynamics.attention import Mlp
from flam_jax.dynamics.flam import flam
from flam_jax.dynamics.interface import ActionPosterior, Factors, ModelOutput, ModelSpec, Phase
from flam_jax.dynamics.outputs import check_frames, paper_losses
from flam_jax.dynamics.positions import position_codes
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.dynamics.streams import empty_caches


class SlotMixerDecoder(nn.Module):
    """Patches attend to slots, each with its position as the query (the slot mixer of Sajjadi et al. 2022)."""

    feature_dim: int
    grid: tuple[int, int]
    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, slots: Float[Array, "*b k d"]) -> tuple[Float[Array, "*b h w c"], Float[Array, "*b k h w"]]:
        """Features, and the masks of the slots: the attention to them, a mean over heads, which sums to 1 over k."""
        *batch, _, dim = slots.shape
        norm = lambda x: nn.LayerNorm(dtype=self.dtype)(x)  # noqa: E731
        codes = position_codes(*self.grid).astype(self.dtype)
        position = nn.Dense(dim, dtype=self.dtype, name="position")(codes)
        x = jnp.broadcast_to(position, (*batch, *position.shape))
        attend = SlotCrossAttention(self.num_heads, self.dtype, name="slots")
        read, weights = attend(norm(x), norm(slots.astype(self.dtype)))
        x = x + read
        x = x + Mlp(self.dtype, name="mlp")(norm(x))
        features = nn.Dense(self.feature_dim, dtype=self.dtype, name="out")(norm(x)).astype(jnp.float32)
        of_slots = jnp.moveaxis(weights.mean(axis=-4)[..., :-1], -1, -3) + 1e-9  # a patch may read the null slot alone
        return features, of_slots / of_slots.sum(axis=-3, keepdims=True)


class ObjectCentric(nn.Module):
    """Slots learned by reconstruction, and dynamics on them.

    Attributes:
      num_factors: K.
      factorizer: features -> slots.
      decoder: slots -> features.
      action_model: `SlotActions` or `NoActions`. Its parameters lie beside those of this module.
      forward_dynamics: all slots and actions -> next slots.
      slot_training_share: share of training in which slots are learned; after it they are frozen.
    """

    num_factors: int
    factorizer: RecurrentFactorizer
    decoder: SlotMixerDecoder
    action_model: Any
    forward_dynamics: CoupledForwardDynamics
    slot_training_share: float

    def setup(self):
        nn.share_scope(self, self.action_model)

    @property
    def spec(self) -> ModelSpec:
        """Slots first, then dynamics on them."""
        actions, share = self.action_model, self.slot_training_share
        dynamics = ("context", "inverse_dynamics", "codebook") if actions.action_dim else ()
        slots = Phase("slots", 0.0, share, ("factorizer", "decoder"), ("slots",))
        losses = ("prediction", "kl", *actions.added_loss_names, "slot_prediction")
        return ModelSpec(
            self.num_factors,
            actions.action_dim,
            actions.source,
            "slots",
            (slots, Phase("dynamics", share, 1.0, ("forward_dynamics", *dynamics), losses)),
        )

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        annealing: SlotAnnealing | None = None,
        actions: Float[Array, "b t-1 k a"] | None = None,
        true_actions: Shaped[Array, "b t *n"] | None = None,
    ) -> ModelOutput:
        """See `LatentActionModel`. A codebook learns where actions are sampled."""
        del true_actions
        check_frames(features.shape[1])
        factors, _ = self.factorizer(features, None, annealing)
        reconstruction, _ = self.decoder(factors.slots)
        losses = {"slots": jnp.square(reconstruction - features).sum(axis=(-3, -2, -1)).mean()}
        slots = jax.lax.stop_gradient(factors.slots)
        posterior = self.action_model(slots)
        if actions is None and self.has_rng("action"):
            sample_key, loss_key = jax.random.split(self.make_rng("action"))
            actions = posterior.sample(sample_key)
            losses |= self.action_model.added_losses(posterior, loss_key)
        actions = posterior.mean if actions is None else actions
        assert actions is not None
        next_slots = self.predict_slots(slots[:, :-1], actions)
        losses["slot_prediction"] = jnp.square(next_slots - slots[:, 1:]).sum(axis=(-2, -1)).mean()
        next_features, action_kl = self._frozen_decoder(next_slots), posterior.kl()
        return ModelOutput(
            slots=slots,
            attention=factors.attention,
            action_mean=posterior.mean,
            action_log_var=posterior.log_var,
            action_kl=action_kl,
            actions=actions,
            next_slots=next_slots,
            next_features=next_features,
            losses=paper_losses(features, next_features, action_kl) | losses,
            extras=self.action_model.extras(posterior),
        )

    def factorize(self, features: Float[Array, "b t h w c"]) -> Factors:
        """See `LatentActionModel`."""
        return self.factorizer(features)[0]

    def infer_actions(
        self, slots: Float[Array, "b t k d"], true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> ActionPosterior:
        """See `LatentActionModel`."""
        del true_actions
        check_frames(slots.shape[1])
        return self.action_model(slots)

    def predict_slots(
        self, slots: Float[Array, "b t k d"], actions: Float[Array, "b t k a"]
    ) -> Float[Array, "b t k d"]:
        """ŝ_{t+1} from all s_t and a_t, for all t at once."""
        return self.forward_dynamics(slots, actions, None, None)[0]

    def aggregate(
        self,
        features: Float[Array, "b t h w c"],
        next_slots: Float[Array, "b t k d"],
        attention: Float[Array, "b t k h w"],
    ) -> Float[Array, "b t h w c"]:
        """ẑ_{t+1} from ŝ_{t+1} alone: slots carry all of the frame."""
        del features, attention
        return self.decoder(next_slots)[0]

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape k a"]:
        """See `LatentActionModel`."""
        return self.action_model.sample_prior(key, (*shape, self.num_factors))

    def init_cache(self, features: Float[Array, "b h w c"]) -> dict[str, Any]:
        """See `LatentActionModel`. `last_features` are those of the frame before the one that is observed."""
        b, dim = features.shape[0], self.factorizer.slot_attention.slot_dim
        return {
            "factorizer": self.factorizer.init_cache(b),
            "forward": empty_caches(self.forward_dynamics, (b, self.num_factors), dim),
            "last_features": features,
        }

    def observe_frame(
        self,
        cache: dict[str, Any],
        features: Float[Array, "b h w c"],
        predicted_slots: Float[Array, "b k d"] | None = None,
    ) -> tuple[dict[str, Any], Float[Array, "b k d"], Float[Array, "b k h w"]]:
        """See `LatentActionModel`. After a predicted frame no true one can be observed."""
        if predicted_slots is not None:
            return cache, predicted_slots, self.decoder(predicted_slots)[1]
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
        del masks
        next_slots, forward = self.forward_dynamics(slots[:, None], actions[:, None], None, cache["forward"])
        next_slots = next_slots[:, 0]
        return {**cache, "forward": forward, "last_features": features}, next_slots, self.decoder(next_slots)[0]

    def _frozen_decoder(self, slots: Float[Array, "b t k d"]) -> Float[Array, "b t h w c"]:
        """Gradients reach the slots, not the decoder."""
        params = jax.lax.stop_gradient(self.decoder.variables["params"])
        return self.decoder.clone(parent=None).apply({"params": params}, slots)[0]  # type: ignore  # a pair


def object_centric(
    grid: tuple[int, int],
    feature_dim: int,
    num_factors: int,
    action_dim: int,
    *,
    num_codes: int = 8,
    slot_training_share: float,
    **fields: Any,
) -> ObjectCentric:
    """PlaySlot; SlotFormer with an `action_dim` of 0.

    Args:
      grid: rows and columns of patches.
      feature_dim: c.
      num_factors: K.
      action_dim: size of one slot's latent action.
      num_codes: of the codebook.
      slot_training_share: share of training in which slots are learned.
      **fields: as `flam`, of which the parts that are not FLAM's own are taken.
    """
    parts = flam(num_factors, action_dim, **fields)
    stream = parts.context
    block: dict[str, Any] = dict(
        num_blocks=stream.num_blocks, num_heads=stream.num_heads, history=stream.history, dtype=stream.dtype
    )
    return ObjectCentric(
        num_factors=num_factors,
        factorizer=recurrent_factorizer(parts.factorizer),
        decoder=SlotMixerDecoder(feature_dim, grid, stream.num_heads, stream.dtype),
        action_model=SlotActions(action_dim, num_codes, **block) if action_dim else NoActions(),
        forward_dynamics=CoupledForwardDynamics(**block),
        slot_training_share=slot_training_share,
    )
