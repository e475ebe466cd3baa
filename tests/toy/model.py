"""A model in one file: patches change by a linear map of themselves and of one latent action for the scene."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from flam_jax.dynamics.interface import Factors, ModelOutput, ModelSpec, Phase
from flam_jax.dynamics.inverse import ActionDistribution, gaussian
from flam_jax.dynamics.outputs import check_frames, paper_losses


class Linear(nn.Module):
    """A `LatentActionModel` whose one slot is the mean of the patches."""

    action_dim: int
    feature_dim: int

    def setup(self):
        self.inverse = nn.Dense(2 * self.action_dim)
        self.forward = nn.Dense(self.feature_dim)
        self.write = nn.Dense(self.feature_dim)

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            1, self.action_dim, "inferred", "features", (Phase("all", 0.0, 1.0, (), ("prediction", "kl")),)
        )

    def __call__(
        self, features: Array, annealing: Any = None, actions: Array | None = None, true_actions: Any = None
    ) -> ModelOutput:
        del annealing
        check_frames(features.shape[1])
        factors = self.factorize(features)
        posterior = self.infer_actions(factors.slots, true_actions)
        if actions is None:
            actions = posterior.sample(self.make_rng("action")) if self.has_rng("action") else posterior.mean
        next_slots = self.predict_slots(factors.slots[:, :-1], actions)
        next_features = self.aggregate(features[:, :-1], next_slots, factors.attention[:, :-1])
        kl = posterior.kl()
        return ModelOutput(
            slots=factors.slots,
            attention=factors.attention,
            action_mean=posterior.mean,
            action_log_var=posterior.log_var,
            action_kl=kl,
            actions=actions,
            next_slots=next_slots,
            next_features=next_features,
            losses=paper_losses(features, next_features, kl),
        )

    def factorize(self, features: Float[Array, "*b h w c"]) -> Factors:
        return Factors(
            features.mean(axis=(-3, -2))[..., None, :], jnp.ones((*features.shape[:-3], 1, *features.shape[-3:-1]))
        )

    def infer_actions(self, slots: Array, true_actions: Shaped[Array, "..."] | None = None) -> ActionDistribution:
        del true_actions
        check_frames(slots.shape[1])
        return gaussian(self.inverse(slots[:, 1:] - slots[:, :-1]))

    def predict_slots(self, slots: Array, actions: Array) -> Array:
        return slots + self.forward(jnp.concatenate([slots, actions], axis=-1))

    def aggregate(self, features: Array, next_slots: Array, attention: Array) -> Array:
        del attention
        return features + self.write(features + next_slots[..., 0, None, None, :])

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        return jax.random.normal(key, (*shape, 1, self.action_dim))

    def init_cache(self, features: Array) -> dict[str, Any]:
        return {}

    def observe_frame(self, cache: Any, features: Array, predicted_slots: Array | None = None) -> Any:
        factors = self.factorize(features[:, None])
        return cache, factors.slots[:, 0], factors.attention[:, 0]

    def predict(self, cache: Any, features: Array, slots: Array, masks: Array, actions: Array) -> Any:
        next_slots = self.predict_slots(slots, actions)
        return cache, next_slots, self.aggregate(features, next_slots, masks)


def build(fields: Mapping[str, Any]) -> Linear:
    """From the fields of the configuration."""
    return Linear(fields["total_action_dim"], fields["feature_dim"])
