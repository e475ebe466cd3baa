"""Which pixels of an imagined frame show an entity, where the true frames have masks: by color, then by place."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

# Added to the squared distance of colors in [0, 1], of an entity as far away as the frame is wide: where two have one
# color, the nearer one counts.
DISTANCE_WEIGHT = 0.01


def to_unit(frames: UInt8[np.ndarray, "*b H W 3"]) -> Float[np.ndarray, "*b H W 3"]:
    """0..255 to 0..1."""
    return frames.astype(np.float32) / 255


def background(frames: Float[np.ndarray, "t H W 3"], masks: UInt8[np.ndarray, "t H W"]) -> Float[np.ndarray, "H W 3"]:
    """The median of what a pixel shows while it shows no entity.

    Where it always shows one: the median of all pixels that show none. What is behind the entities should stand still
    within the clip, or have little contrast.
    """
    free = masks == 0
    if not free.any():
        raise ValueError("no pixel of the clip shows the background")
    shown = np.where(free[..., None], frames, np.nan)
    shown[:, ~free.any(axis=0)] = np.median(frames[free], axis=0)
    return np.nanmedian(shown, axis=0).astype(np.float32)


def colors(
    frames: Float[np.ndarray, "t H W 3"], masks: UInt8[np.ndarray, "t H W"], entities: int
) -> Float[np.ndarray, "n 3"]:
    """Mean color of every entity over a clip; one that no color is near to where it is never seen."""
    shown = [masks == number for number in range(1, entities + 1)]
    return np.stack([frames[there].mean(axis=0) if there.any() else np.full(3, np.inf) for there in shown])


def owners(
    image: Float[np.ndarray, "H W 3"],
    ground: Float[np.ndarray, "H W 3"],
    of_entities: Float[np.ndarray, "n 3"],
    mask: UInt8[np.ndarray, "H W"],
) -> Int[np.ndarray, "H W"]:
    """The entity that a pixel seems to show, from 1; 0 for the background.

    Args:
      image: an imagined frame.
      ground: from `background`.
      of_entities: from `colors`.
      mask: of a true frame, which says where the entities are, or were.
    """
    height, width = mask.shape
    y, x = np.mgrid[:height, :width]
    distances = [np.square(image - ground).sum(axis=-1)]
    for number, color in enumerate(of_entities, start=1):
        there = np.argwhere(mask == number)
        if not len(there) or not np.isfinite(color).all():
            distances.append(np.full(mask.shape, np.inf, np.float32))
            continue
        row, column = there.mean(axis=0)
        away = ((y - row) ** 2 + (x - column) ** 2) / width**2
        distances.append(np.square(image - color).sum(axis=-1) + DISTANCE_WEIGHT * away)
    return np.argmin(np.stack(distances), axis=0)


def visible(masks: UInt8[np.ndarray, "t H W"], entities: int, share: float) -> Bool[np.ndarray, "t n"]:
    """Whether at least a share of the largest area that an entity has in the clip is seen in a frame."""
    area = np.stack([(masks == number).sum(axis=(1, 2)) for number in range(1, entities + 1)], axis=1)
    return area >= np.maximum(share * area.max(axis=0, keepdims=True), 1)


__all__ = ["background", "colors", "owners", "to_unit", "visible"]
