"""Frames to patches and back."""

from jaxtyping import Array, Shaped


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
