"""Frames to patches and back."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, Shaped, UInt8, UInt32


def to_patches(frames: Shaped[Array, "*b H W c"], size: int) -> Shaped[Array, "*b h w p"]:
    """Cuts frames into non-overlapping patches of size x size pixels, flattened row by row: p = size * size * c."""
    *batch, height, width, channels = frames.shape
    x = frames.reshape(*batch, height // size, size, width // size, size, channels)
    return x.swapaxes(-4, -3).reshape(*batch, height // size, width // size, size * size * channels)


def from_patches(patches: Shaped[Array, "*b h w p"], size: int) -> Shaped[Array, "*b H W c"]:
    """Puts patches together again; the inverse of `to_patches`."""
    *batch, rows, columns, flat = patches.shape
    x = patches.reshape(*batch, rows, columns, size, size, flat // size**2)
    return x.swapaxes(-4, -3).reshape(*batch, rows * size, columns * size, flat // size**2)


def draw_patches(
    key: PRNGKeyArray, frames: UInt8[Array, "b t H W 3"], size: int, count: int, power: float
) -> UInt8[Array, "b 1 size strip 3"]:
    """Strips of patches drawn from every window, so that a tokenizer of patches sees the rare ones often.

    Nearly all patches of a video are copies of a few: drawn alike, they would fill every batch.

    Args:
      key: of the draw.
      frames: windows of consecutive frames.
      size: pixels per side of a patch.
      count: patches that are drawn of each window, at most all of them, none twice.
      power: a patch of which the window holds n copies is drawn with a weight of n**-power: at 0 every patch has the
        same chance, at 1 every content has.

    Returns:
      The patches of each window side by side, as a frame one patch high: strip = count * size.
    """
    patches = to_patches(frames, size)
    patches = patches.reshape(len(frames), -1, patches.shape[-1])
    # The largest of log-weights with Gumbel noise are a draw without replacement.
    noise = jax.random.gumbel(key, patches.shape[:2])
    _, place = jax.lax.top_k(noise - power * jnp.log(copies(patches)), count)
    drawn = jnp.take_along_axis(patches, place[..., None], axis=1)
    return from_patches(drawn[:, None, None], size)


def copies(patches: UInt8[Array, "b n p"]) -> Int[Array, "b n"]:
    """How many of the n patches are equal to this one, itself included."""
    # Where two different ones have one hash, a draw has a weight that is a little off.
    return jax.vmap(count_equal)(hashes(patches))


def hashes(values: UInt8[Array, "*b p"]) -> UInt32[Array, "*b"]:
    """One number for each vector: the same for equal ones, hardly ever for others."""
    factors = jax.random.bits(jax.random.key(0), (values.shape[-1],), jnp.uint32)
    return values.astype(jnp.uint32) @ factors


def count_equal(values: Shaped[Array, " n"]) -> Int[Array, " n"]:
    """How many of the values are equal to this one, itself included.

    By sorting, not by counting into a table: there may be more different values than memory.
    """
    ordered = jnp.sort(values)
    return jnp.searchsorted(ordered, values, side="right") - jnp.searchsorted(ordered, values, side="left")
