"""Vector-quantized latent actions: the bottleneck of Genie (Bruce et al. 2024), after van den Oord et al. 2017."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

COMMITMENT = 0.25
# A code with this share of its fair part of the examples is pulled towards them with a force of 1/e.
DEAD_SHARE = 0.1


@flax.struct.dataclass
class CodeDistribution:
    """All probability on one code of the book."""

    mean: Float[Array, "*b a"]  # the code's vector
    index: Int[Array, " *b"]
    encodings: Float[Array, "*b a"]  # before they were snapped to the code
    num_codes: int = flax.struct.field(pytree_node=False)

    @property
    def log_var(self) -> Float[Array, "*b a"]:
        """Minus infinity: nothing is left open."""
        return jnp.full_like(self.mean, -jnp.inf)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b a"]:
        """The code's vector."""
        del key
        return self.mean

    def kl(self) -> Float[Array, " *b"]:
        """KL from the uniform prior over the codes, in nats: log(num_codes), whatever the code."""
        return jnp.full(self.index.shape, jnp.log(float(self.num_codes)))


class Codebook(nn.Module):
    """Snaps encodings to the nearest of `num_codes` vectors."""

    num_codes: int
    dim: int

    def setup(self):
        self.codes = self.param("codes", nn.initializers.normal(1.0), (self.num_codes, self.dim))

    def __call__(self, encodings: Float[Array, "*b a"]) -> CodeDistribution:
        """The nearest codes; gradients pass straight through to the encodings."""
        x = encodings.astype(jnp.float32)
        index = jnp.argmin(self._distance(x), axis=-1)
        code = self.codes[index]
        return CodeDistribution(x + jax.lax.stop_gradient(code - x), index, encodings, self.num_codes)

    def loss(self, encodings: Float[Array, "*b a"], key: PRNGKeyArray) -> Float[Array, ""]:
        """Draws codes to their encodings, encodings to their codes, and dead codes to encodings drawn at random.

        The last is the online clustering of Zheng & Vedaldi (2023), judged by the batch at hand: a code that nothing is
        near to would otherwise never move again, and one code remains.

        Args:
          encodings: of all examples of a batch.
          key: chooses the encodings that dead codes are drawn to.

        Returns:
          Squared distances summed over a, averaged over the examples (over the codes, for the dead ones).
        """
        x = encodings.astype(jnp.float32).reshape(-1, self.dim)
        fixed = jax.lax.stop_gradient(x)
        index = jnp.argmin(self._distance(x), axis=-1)
        codes = jnp.square(fixed - self.codes[index]).sum(axis=-1).mean()
        commitment = jnp.square(x - jax.lax.stop_gradient(self.codes[index])).sum(axis=-1).mean()
        use = jnp.zeros(self.num_codes).at[index].add(1.0 / x.shape[0]) * self.num_codes
        anchors = fixed[jax.random.randint(key, (self.num_codes,), 0, x.shape[0])]
        dead = jnp.exp(-use / DEAD_SHARE) * jnp.square(anchors - self.codes).sum(axis=-1)
        return codes + COMMITMENT * commitment + dead.mean()

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape a"]:
        """Vectors of codes drawn from the uniform prior."""
        return self.codes[jax.random.randint(key, shape, 0, self.num_codes)]

    def _distance(self, x: Float[Array, "*b a"]) -> Float[Array, "*b n"]:
        x = jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], *self.codes.shape))
        return jnp.square(x - jnp.broadcast_to(self.codes, x.shape)).sum(axis=-1)
