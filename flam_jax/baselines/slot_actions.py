"""The actions of object-centric models: a code and a variation a slot (PlaySlot), or none (SlotFormer)."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from flam_jax.baselines.codebook import Codebook
from flam_jax.dynamics.flam import FactoredInverseDynamics
from flam_jax.dynamics.inverse import ActionDistribution
from flam_jax.dynamics.streams import ContextStream


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
class EmptyActions:
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


class SlotActions(nn.Module):
    """A latent action a slot (PlaySlot): a code of the book and a variation.

    Attributes:
      action_dim: of both.
      num_codes: of the codebook.
      num_blocks, num_heads, history, dtype: of the streams, see `flam`.
    """

    action_dim: int
    num_codes: int
    num_blocks: int
    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32

    source = "inferred"
    added_loss_names = ("codebook",)

    def setup(self):
        block: dict[str, Any] = dict(
            num_blocks=self.num_blocks, num_heads=self.num_heads, history=self.history, dtype=self.dtype
        )
        self.context = ContextStream(**block)
        # Encodings that are snapped to codes, and variations, side by side.
        self.inverse_dynamics = FactoredInverseDynamics(action_dim=2 * self.action_dim, **block)
        self.codebook = Codebook(self.num_codes, self.action_dim)

    def __call__(self, slots: Float[Array, "b t k d"]) -> VariedCodes:
        """Posterior over the actions between consecutive slots, shape b t-1 k a."""
        context, _ = self.context(slots[:, :-1])
        both = self.inverse_dynamics(slots[:, :-1], slots[:, 1:], context)
        encodings, mean = jnp.split(both.mean, 2, axis=-1)
        variation = ActionDistribution(mean, both.log_var[..., self.action_dim :])
        return VariedCodes(self.codebook(encodings), variation)

    def added_losses(self, posterior: VariedCodes, key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
        """That of the codebook."""
        return {"codebook": self.codebook.loss(posterior.code.encodings, key)}

    def extras(self, posterior: VariedCodes) -> dict[str, Array]:
        """The numbers of the codes."""
        return {"action_codes": posterior.code.index}

    def sample_prior(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape a"]:
        """A code of the book and a variation from N(0, I)."""
        first, second = jax.random.split(key)
        return self.codebook.sample(first, shape) + jax.random.normal(second, (*shape, self.action_dim))


class NoActions(nn.Module):
    """No latent actions (SlotFormer)."""

    source = "none"
    action_dim = 0
    added_loss_names = ()

    def __call__(self, slots: Float[Array, "b t k d"]) -> EmptyActions:
        """Arrays of size 0."""
        b, t, k, _ = slots.shape
        return EmptyActions(jnp.zeros((b, t - 1, k, 0)))

    def added_losses(self, posterior: EmptyActions, key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
        """None."""
        del posterior, key
        return {}

    def extras(self, posterior: EmptyActions) -> dict[str, Array]:
        """None."""
        del posterior
        return {}

    def sample_prior(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape 0"]:
        """Arrays of size 0."""
        del key
        return jnp.zeros((*shape, 0))
