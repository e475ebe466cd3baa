"""Positions of patches: coordinates, codes, neighbourhoods, and a Gaussian prior over them."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def coordinates(h: int, w: int) -> Float[Array, "h w 2"]:
    """Row and column of every patch as numbers with a mean of 0 and a mean square of 1 (0 where there is one alone).

    A step is the same difference wherever it is taken (as in Locatello et al. 2020).
    """
    return jnp.stack(jnp.meshgrid(_evenly_spaced(h), _evenly_spaced(w), indexing="ij"), axis=-1)


def position_codes(h: int, w: int) -> Float[Array, "h w h+w+2"]:
    """Row and column of every patch, one-hot side by side, and as coordinates; each part has a mean square of 1.

    A linear map of them is a learned embedding of rows and columns.
    """
    rows = jnp.broadcast_to(jnp.eye(h)[:, None] * h**0.5, (h, w, h))
    columns = jnp.broadcast_to(jnp.eye(w)[None] * w**0.5, (h, w, w))
    return jnp.concatenate([rows, columns, coordinates(h, w)], axis=-1)


def append_positions(content: Float[Array, "b t n d"], positions: Float[Array, "h w p"]) -> Float[Array, "b t n d+p"]:
    """The content of patches (n = h w) with their positions behind it."""
    flat = positions.reshape(-1, positions.shape[-1]).astype(content.dtype)
    return jnp.concatenate([content, jnp.broadcast_to(flat, (*content.shape[:2], *flat.shape))], axis=-1)


def gaussian_prior(
    center: Float[Array, "*b heads 2"], log_sigma: Float[Array, " heads"], h: int, w: int
) -> Float[Array, "*b heads h w"]:
    """Logits of a Gaussian spatial prior: -|x - center|² / (2 sigma²) at the coordinates x of every patch."""
    center = center[..., None, None, :]
    places = jnp.broadcast_to(coordinates(h, w), (*center.shape[:-3], h, w, 2))
    distance = jnp.square(places - center).sum(axis=-1)
    width = 2 * jnp.exp(2 * log_sigma)
    return -distance / jnp.broadcast_to(width[:, None, None], distance.shape)


def patches_from(
    point: Float[Array, "*b k heads 2"], h: int, w: int
) -> tuple[Float[Array, "*b h k heads"], Float[Array, "*b w k heads"]]:
    """How many rows and columns every row and column of patches lies from points in `coordinates`."""
    found = []
    for axis, n in enumerate((h, w)):
        line = _evenly_spaced(n)
        spacing = 1.0 if n == 1 else line[1] - line[0]
        at = jnp.broadcast_to(point[..., None, :, :, axis], (*point.shape[:-3], n, *point.shape[-3:-1]))
        found.append((jnp.broadcast_to(line[:, None, None], at.shape) - at) / spacing)
    return found[0], found[1]


def adjacency(n: int) -> Float[Array, "n n"]:
    """1 between a place in a row and itself or its neighbours, else 0."""
    return jnp.eye(n, k=-1) + jnp.eye(n) + jnp.eye(n, k=1)


def smooth(x: Float[Array, "*b h w d"]) -> Float[Array, "*b h w d"]:
    """A mean of the 5x5 values around each, the near ones weighing more, fewer at the edges."""
    rows, columns = (_smoothing_matrix(n).astype(x.dtype) for n in x.shape[-3:-1])
    return jnp.einsum("hi,...ijd,wj->...hwd", rows, x, columns)


def _smoothing_matrix(n: int) -> Float[Array, "n n"]:
    near = adjacency(n)
    mean = near / near.sum(axis=1, keepdims=True)
    return mean @ mean


def _evenly_spaced(n: int) -> Float[Array, " n"]:
    centred = jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2
    return centred / jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(centred))), 0.5)
