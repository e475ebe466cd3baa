"""Everything that changes in the course of training, as functions of `progress`, the share of training done."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Progress = Float[Array, ""] | float


@flax.struct.dataclass
class SlotAnnealing:
    """How slot attention differs from that of inference while slots are still being sorted out.

    Slot attention has many stable assignments in which an entity stays with the background. It is started at a low
    inverse temperature and with noise, so that slots can still exchange contents.

    Attributes:
      inverse_temperature: of the softmax over slots.
      query_noise: added to the queries, the same in all frames and iterations of an example.
      separation_penalty: logit penalty for contents unlike the others of a slot (`grouping.balanced_assignment`). None
        is 0 without its cost. The frames of a call count: the first has no frame before it, with a cache too.
    """

    inverse_temperature: Float[Array, " b"]
    query_noise: Float[Array, "b k d"]
    separation_penalty: Float[Array, ""] | None = None


def beta(progress: Progress, *, start: float, end: float, anneal_start: float) -> Float[Array, ""]:
    """β, the weight of the KL: `start` until `anneal_start`, then geometrically to `end`.

    Linearly where one of the two is 0.
    """
    share = jnp.clip((progress - anneal_start) / max(1 - anneal_start, 1e-6), 0, 1)
    if start > 0 and end > 0:
        return start * (end / start) ** share
    return start + (end - start) * share


def annealed_share(progress: Progress, end: float) -> Float[Array, ""]:
    """How much of an annealing that ends at `end` is done, from 0 to 1; without an annealing (`end` = 0) all of it."""
    return jnp.clip(progress / end, 0, 1) if end > 0 else jnp.ones(())


def inverse_temperature(share: Float[Array, ""], *, full: float, start: float) -> Float[Array, ""]:
    """From the fraction `start` of the full value geometrically to all of it."""
    return full * start ** (1 - share)


def separation(share: Float[Array, ""], penalty: float) -> Float[Array, ""]:
    """The separation penalty, which falls late.

    A slot that shares an entity and the background evenly with others lets go of one of them only when the inverse
    temperature is high, and it is the penalty that decides of which.
    """
    return penalty * (1 - share**4)


def slot_annealing(
    progress: Progress,
    key: PRNGKeyArray,
    shape: tuple[int, int, int],
    *,
    end: float,
    full_inverse_temperature: float,
    inverse_temperature_start: float,
    inverse_temperature_jitter: float,
    query_noise: float,
    separation_penalty: float,
) -> SlotAnnealing:
    """Slot attention of a batch at a share of training.

    Args:
      progress: share of training.
      key: for the noise.
      shape: b, k, d.
      end: share of training at which the annealing ends; 0: none.
      full_inverse_temperature: that of inference.
      inverse_temperature_start: fraction of it at step 0.
      inverse_temperature_jitter: standard deviation of its logarithm over examples, until the end.
      query_noise: standard deviation at step 0; falls linearly.
      separation_penalty: at step 0.
    """
    share = annealed_share(progress, end)
    jitter_key, query_key = jax.random.split(key)
    jitter = jnp.where(share < 1, inverse_temperature_jitter, 0.0) * jax.random.normal(jitter_key, shape[:1])
    temperature = inverse_temperature(share, full=full_inverse_temperature, start=inverse_temperature_start)
    return SlotAnnealing(
        temperature * jnp.exp(jitter),
        query_noise * (1 - share) * jax.random.normal(query_key, shape),
        separation(share, separation_penalty) if separation_penalty else None,
    )


def multi_step(progress: Progress, start: float) -> Bool[Array, ""] | bool:
    """Whether more than one step is predicted: from the share `start` of training on; True where that is 0."""
    return progress >= start if start > 0 else True
