"""Inverse dynamics: a_t^i = IDM(s_t^{1:K}, s_{t+1}^i) (PAPER: IDM)."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from flam_jax.dynamics.streams import FactorStream

# The posterior's log variance stays within these bounds (standard deviation 0.0025 to 1.65): no channel can become
# noise-free, none can drown.
LOG_VAR_MIN, LOG_VAR_MAX = -12.0, 1.0


@flax.struct.dataclass
class ActionDistribution:
    """Diagonal Gaussian over latent actions."""

    mean: Float[Array, "*b a"]
    log_var: Float[Array, "*b a"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b a"]:
        """A reparameterized sample."""
        return self.mean + jnp.exp(0.5 * self.log_var) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def kl(self) -> Float[Array, " *b"]:
        """KL[q ‖ N(0, I)] of every latent action, in nats (PAPER: loss)."""
        return 0.5 * (jnp.square(self.mean) + jnp.exp(self.log_var) - 1.0 - self.log_var).sum(axis=-1)


def gaussian(outputs: Float[Array, "*b n"]) -> ActionDistribution:
    """The distribution that 2a outputs of a layer stand for; outputs of 0 are a variance of e^-2."""
    mean, log_var = jnp.split(outputs.astype(jnp.float32), 2, axis=-1)
    middle, half = (LOG_VAR_MAX + LOG_VAR_MIN) / 2, (LOG_VAR_MAX - LOG_VAR_MIN) / 2
    start = jnp.arctanh((-2.0 - middle) / half)
    return ActionDistribution(mean, middle + half * jnp.tanh(log_var / half + start))  # bounded smoothly


class InverseDynamics(nn.Module):
    """One factor's inverse dynamics; `over_factors` maps it."""

    action_dim: int
    num_blocks: int
    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        slots: Float[Array, "b t d"],
        next_slots: Float[Array, "b t d"],
        context: Float[Array, "b t k d"],
    ) -> ActionDistribution:
        """Args:
          slots: s_t^i of one factor.
          next_slots: s_{t+1}^i of the same factor.
          context: context stream at t.

        Returns:
          Posterior over a_t^i, in float32: `mean` and `log_var` of shape b t a.
        """
        dim = slots.shape[-1]
        pair = jnp.concatenate([slots, next_slots, next_slots - slots], axis=-1).astype(self.dtype)
        x = nn.Dense(dim, dtype=self.dtype)(pair)
        x, _ = FactorStream(self.num_blocks, self.num_heads, self.history, self.dtype, name="stream")(x, context)
        return gaussian(nn.Dense(2 * self.action_dim, dtype=self.dtype)(x))
