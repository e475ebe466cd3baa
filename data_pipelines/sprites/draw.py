"""Draws sprites with smooth edges, all frames of a clip at once."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

GROUND = (38, 40, 46)
COLORS = np.array(
    [
        (230, 75, 60),
        (70, 150, 235),
        (245, 200, 65),
        (95, 200, 110),
        (190, 100, 220),
        (245, 145, 60),
        (75, 210, 205),
        (240, 130, 180),
        (165, 125, 85),
        (225, 225, 225),
        (130, 145, 60),
        (120, 120, 200),
    ],
    np.float32,
)
_WAVES = 6  # of a texture
_CONTRAST = 22.0  # of a texture: largest difference from its mean, in levels of 255
_BRIGHTER = 20.0  # the mean of a texture, than the plain ground: what is darker than that stays above 0

Points = Float[np.ndarray, "t rows columns"]


def _box(x: Points, y: Points, across: float, up: float) -> Points:
    return np.maximum(np.abs(x) - across, np.abs(y) - up)


def _polygon(corners: int, turn: float) -> Callable[[Points, Points, float], Points]:
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    inner = float(np.cos(np.pi / corners))

    def distance(x: Points, y: Points, r: float) -> Points:
        sides = [x * np.float32(np.cos(a)) + y * np.float32(np.sin(a)) for a in angles]
        return np.maximum.reduce(sides) - r * inner

    return distance


# Distance to the edge in pixels, negative inside, of a shape of half its extent r around 0.
SHAPES: tuple[Callable[[Points, Points, float], Points], ...] = (
    lambda x, y, r: np.hypot(x, y) - r,
    lambda x, y, r: _box(x, y, 0.9 * r, 0.9 * r),
    _polygon(3, np.pi / 2),
    lambda x, y, r: np.minimum(_box(x, y, r, 0.36 * r), _box(x, y, 0.36 * r, r)),
    lambda x, y, r: np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r,
    _polygon(4, 0.0),
    lambda x, y, r: _box(x, y, r, 0.5 * r),
    _polygon(6, 0.0),
)


def draw(
    centers: Float[np.ndarray, "t n 2"],
    sizes: Float[np.ndarray, " n"],
    ground: Float[np.ndarray, "t H W 3"],
    one_color: bool,
    one_shape: bool,
) -> tuple[UInt8[np.ndarray, "t H W 3"], UInt8[np.ndarray, "t H W"]]:
    """Frames, and the number of the shape that most of a pixel shows, from 1.

    Args:
      centers: x and y in pixels of the frame; may lie outside of it.
      sizes: extents in pixels.
      ground: what is behind the shapes; drawn over.
      one_color, one_shape: whether all look alike.
    """
    length, height, width, _ = ground.shape
    window = int(np.ceil(max(sizes))) + 2
    # Everything is drawn on a larger sheet, so that windows need not be cut at its edges.
    sheet = np.zeros((length, height + 2 * window, width + 2 * window, 3), np.float32)
    sheet[:, window:-window, window:-window] = ground
    owner = np.zeros(sheet.shape[:3], np.uint8)
    frame = np.arange(length)[:, None, None]
    span = np.arange(window)
    for number, size in enumerate(sizes):  # the last lies on top
        center = centers[:, number].astype(np.float32)
        first = np.floor(center - window / 2).astype(int)
        columns, rows = (np.clip(first[:, axis], -window, (width, height)[axis]) for axis in (0, 1))
        x = (columns[:, None] + span + 0.5 - center[:, :1])[:, None, :]
        y = (rows[:, None] + span + 0.5 - center[:, 1:])[:, :, None]
        shape = SHAPES[0 if one_shape else number % len(SHAPES)]
        cover = np.clip(0.5 - shape(x, y, float(size) / 2), 0, 1)
        place = (frame, (rows[:, None] + span + window)[:, :, None], (columns[:, None] + span + window)[:, None, :])
        color = COLORS[0 if one_color else number]
        behind = sheet[place]
        sheet[place] = behind + cover[..., None] * (color - behind)
        owner[place] = np.where(cover > 0.5, number + 1, owner[place])
    inside = (slice(None), slice(window, -window), slice(window, -window))
    return np.rint(sheet[inside]).astype(np.uint8), np.ascontiguousarray(owner[inside])


def plain(length: int, height: int, width: int) -> Float[np.ndarray, "t H W 3"]:
    """One color."""
    return np.broadcast_to(np.asarray(GROUND, np.float32), (length, height, width, 3))


def texture(
    offsets: Float[np.ndarray, "t 2"], height: int, width: int, rng: np.random.Generator
) -> Float[np.ndarray, "t H W 3"]:
    """A smooth random pattern seen from x, y offsets in pixels, one a frame."""
    frequency = rng.normal(0, 1 / 18, (_WAVES, 2))  # periods of about 18 pixels
    phase, weight = rng.uniform(0, 2 * np.pi, _WAVES), rng.uniform(0.3, 1.0, (_WAVES, 3))
    x = offsets[:, 0, None, None] + np.arange(width)[None, None, :]
    y = offsets[:, 1, None, None] + np.arange(height)[None, :, None]
    waves = np.stack(
        [
            np.cos((2 * np.pi * (f[0] * x + f[1] * y) + p).astype(np.float32))
            for f, p in zip(frequency, phase, strict=True)
        ],
        axis=-1,
    )
    return np.asarray(GROUND, np.float32) + _BRIGHTER + waves @ (_CONTRAST * weight / _WAVES).astype(np.float32)


__all__ = ["COLORS", "GROUND", "SHAPES", "draw", "plain", "texture"]
