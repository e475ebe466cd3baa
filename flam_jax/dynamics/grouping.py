"""How slot attention here departs from the paper's: what the paper does not have, and why it is there.

**Inverse-frequency weights** (`inverse_frequency_power`). In a plain mean over patches an entity of one patch that
shares a slot with a background of fifty has a fiftieth of the slot's readout, and of the gradient that would part the
two. A patch that n patches of the frame look like weighs n^-power.

**Separation penalty** (`separation_penalty`). Nothing in slot attention objects to two entities in one slot while other
slots are empty, or to slots that share all contents evenly: they have the same values, hence the same queries, for
ever. The penalty lowers a slot's logits for what looks unlike the rest of what it holds, and for what does not continue
what it held in the frame before.

**Positions read last** (`positions="readout"`, in `slot_attention.py`). With positions in keys and queries a slot
follows a place, and hands an entity on to another slot on its way. Slots compete by content alone; the readout's
position is added when the iterations are over.

All three are off in the variant `paper` of the experiments.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flam_jax.dynamics.positions import adjacency

# Standard deviation, in feature units, within which features look alike. Up to 8 levels a channel's are farther apart.
AFFINITY_WIDTH = 0.25
# Rounds of the fixed point: one does not part what five slots share evenly.
ASSIGNMENT_ROUNDS = 4


def feature_affinity(
    features: Float[Array, "b t h w c"], others: Float[Array, "b t h w c"]
) -> Float[Array, "b t h*w h*w"]:
    """exp(-|x - y|² / 2σ²) of the features x (axis 2) and y of `others` (axis 3); no gradient.

    Of a frame and itself, summed over one axis: for every patch the number of patches that look like it, itself
    included.
    """
    b, t, h, w, c = features.shape
    x, y = (jax.lax.stop_gradient(z).reshape(b, t, h * w, c) for z in (features, others))
    # |x - y|² = |x|² + |y|² - 2xy: a product of matrices instead of all differences.
    size = lambda z: jnp.square(z).sum(axis=-1)  # noqa: E731
    distance = size(x)[..., :, None] + size(y)[..., None, :] - 2 * jnp.einsum("btnc,btmc->btnm", x, y)
    return jnp.exp(-distance / (2 * AFFINITY_WIDTH**2))


def temporal_affinity(
    before: Float[Array, "b t h w c"], features: Float[Array, "b t h w c"]
) -> Float[Array, "b t h*w h*w"]:
    """How well a patch (axis 3) continues one of the frame before (axis 2), from 0 to 1.

    Fully where it looks like it, is it or is next to it: an entity that turns looks different, but is near.
    """
    h, w = features.shape[2:4]
    near = jnp.kron(adjacency(h), adjacency(w))
    return 1 - (1 - feature_affinity(before, features)) * (1 - near[None, None])


def inverse_frequency_weights(affinity: Float[Array, "b t n n"], power: float) -> Float[Array, "b t 1 n"]:
    """n^-power for a patch that n patches of its frame look like."""
    return affinity.sum(axis=-1)[:, :, None] ** -power


def weighted_assignment(
    attention: Float[Array, "b t k n"], weights: Float[Array, "b t 1 n"] | None
) -> Float[Array, "b t k n"]:
    """How much slots hold of every patch; with inverse-frequency weights of power 1 a whole content counts 1."""
    return attention if weights is None else attention * weights


def dissimilar_mass(assignment: Float[Array, "b t k n"], affinity: Float[Array, "b t n n"]) -> Float[Array, "b t k n"]:
    """u_kn = Σ_m assignment_km (1 - affinity_mn): for every patch, how much a slot holds that is unlike it."""
    return jnp.maximum(
        assignment.sum(axis=-1, keepdims=True) - jnp.einsum("btkn,btnm->btkm", assignment, affinity), 0.0
    )


def balanced_assignment(
    logits: Float[Array, "b t k n"],
    separation_penalty: Float[Array, ""],
    *,
    weights: Float[Array, "b t 1 n"] | None,
    affinity: Float[Array, "b t n n"],
    continuation: Float[Array, "b t n n"],
    previous_assignment: Float[Array, "b 1 k n"] | None = None,
) -> Float[Array, "b t k n"]:
    """Slot attention under the separation penalty λ: which slots hold a patch, summing to 1 over k.

    The fixed point of

        A_kn = softmax_k(logits_kn - λ log(1 + u_kn)),
        u_kn = Σ_m A_km w_m (1 - affinity_mn) + Σ_m A'_km w'_m (1 - continuation_mn),

    where A' and w' are those of the frame before. It is approached by a few damped rounds (mean field). A slot that
    holds one content and follows it, or none, is not penalized for it. Where slots share contents evenly the least
    preference grows, until each of them holds fewer. An entity that turns and looks different stays in its slot.

    Args:
      logits: of slot attention.
      separation_penalty: λ.
      weights: w, of patches; 1 by default.
      affinity: `feature_affinity` in the frame.
      continuation: `temporal_affinity` from the frame before.
      previous_assignment: A' w' of the frame before these; nothing by default.
    """
    attention = jax.nn.softmax(logits, axis=2)
    first = jnp.zeros_like(logits[:, :1]) if previous_assignment is None else previous_assignment
    penalty = jnp.zeros_like(logits)
    for _ in range(ASSIGNMENT_ROUNDS):
        assignment = weighted_assignment(attention, weights)
        last = jnp.concatenate([first, assignment[:, :-1]], axis=1)
        unlike = dissimilar_mass(assignment, affinity) + dissimilar_mass(last, continuation)
        penalty = 0.5 * (penalty + separation_penalty * jnp.log1p(unlike))
        attention = jax.nn.softmax(logits - penalty, axis=2)
    return attention
