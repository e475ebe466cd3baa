"""How much of every slot's attention lies on every entity's cell."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@functools.partial(jax.jit, static_argnames="cells")
def attention_on_cells(
    attention: Float[Array, "b t k h w"], positions: Int[Array, "b t n 2"], cells: tuple[int, int]
) -> tuple[Float[Array, "b t k n"], Float[Array, "b t k n"]]:
    """How much of each slot lies on each agent's cell, and how much of the cell belongs to the slot.

    Args:
      attention: masks, which sum to 1 over k.
      positions: row and column of each agent's cell.
      cells: rows and columns of cells; patches and cells may have any ratio of sizes.

    Returns:
      `mass`: the share of slot k's attention, normalised over the patches, that lies on agent n's cell; and `cover`:
      the share of agent n's cell that slot k takes (its mask there). Both in [0, 1].
    """
    rows = jnp.asarray(_overlap(cells[0], attention.shape[-2]))[positions[..., 0]]
    columns = jnp.asarray(_overlap(cells[1], attention.shape[-1]))[positions[..., 1]]
    taken = jnp.einsum("btkhw,btnh,btnw->btkn", attention, rows, columns)
    whole = jnp.sum(rows, axis=-1) * jnp.sum(columns, axis=-1)
    # A small constant keeps a slot that takes nothing at 0 instead of 0/0.
    mass = taken / (jnp.sum(attention, axis=(-2, -1))[..., None] + 1e-12)
    return mass, taken / whole[:, :, None]


def _overlap(cells: int, patches: int) -> np.ndarray:
    """[cells, patches]: share of a patch's extent that lies in a cell, along one side."""
    starts, ends = np.arange(patches) / patches, (np.arange(patches) + 1) / patches
    low, high = np.arange(cells)[:, None] / cells, (np.arange(cells)[:, None] + 1) / cells
    return (np.clip(np.minimum(ends, high) - np.maximum(starts, low), 0, None) * patches).astype(np.float32)


__all__ = ["attention_on_cells"]
