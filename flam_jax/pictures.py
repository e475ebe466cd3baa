"""Pictures of what a model sees and imagines, as arrays `u8[H W 3]`: for logs while training and for the report."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

WHITE = 255


def to_uint8(frames: Float[np.ndarray, "*b H W 3"]) -> UInt8[np.ndarray, "*b H W 3"]:
    """Frames in [0, 1] to 0..255; what lies outside is clipped."""
    return np.round(np.clip(frames, 0.0, 1.0) * 255.0).astype(np.uint8)


def enlarge(frames: UInt8[np.ndarray, "*b H W 3"], factor: int) -> UInt8[np.ndarray, "*b H2 W2 3"]:
    """Repeats every pixel `factor` times in both directions, so that pixels stay sharp."""
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def colors(count: int) -> UInt8[np.ndarray, "count 3"]:
    """Distinct colours for factors: hues a golden angle apart, in three shades."""
    shades = ((0.85, 1.0), (0.55, 0.9), (1.0, 0.7))
    values = [colorsys.hsv_to_rgb((0.02 + i * 0.61803399) % 1.0, *shades[i // 8 % 3]) for i in range(count)]
    return to_uint8(np.asarray(values, np.float32)[None, None])[0, 0] if count else np.zeros((0, 3), np.uint8)


def spread(masks: Float[np.ndarray, "*b h w"], height: int, width: int) -> Float[np.ndarray, "*b H W"]:
    """Masks over patches to masks over pixels; every pixel takes its patch's value."""
    rows = np.arange(height) * masks.shape[-2] // height
    columns = np.arange(width) * masks.shape[-1] // width
    return masks[..., rows[:, None], columns]


def overlay(
    frames: UInt8[np.ndarray, "t H W 3"], masks: Float[np.ndarray, "t k h w"], strength: float = 0.55
) -> UInt8[np.ndarray, "t H W 3"]:
    """Frames in grey, tinted with the colours of the factors in proportion to their masks.

    Args:
      frames: the frames.
      masks: slot attention, which sums to 1 over k.
      strength: of the tint, from 0 (frames in grey) to 1 (colours only).
    """
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    palette = colors(masks.shape[1]).astype(np.float32)
    tint = np.einsum("tkhw,kc->thwc", spread(masks, *frames.shape[1:3]), palette)
    return np.clip((1 - strength) * grey[..., None] + strength * tint, 0, 255).astype(np.uint8)


def spotlights(
    frames: UInt8[np.ndarray, "t H W 3"], masks: Float[np.ndarray, "t k h w"]
) -> UInt8[np.ndarray, "k t H W 3"]:
    """For each factor the frames as it sees them: bright where it attends, dark elsewhere."""
    light = 0.12 + 0.88 * np.moveaxis(spread(masks, *frames.shape[1:3]), 1, 0)[..., None]
    return (frames * light).astype(np.uint8)


def difference(
    first: UInt8[np.ndarray, "*b H W 3"], second: UInt8[np.ndarray, "*b H W 3"]
) -> UInt8[np.ndarray, "*b H W 3"]:
    """Absolute difference, black where there is none."""
    return np.abs(first.astype(np.int16) - second.astype(np.int16)).astype(np.uint8)


def grid(rows: Sequence[UInt8[np.ndarray, "_ H W 3"]], gap: int = 2) -> UInt8[np.ndarray, "height width 3"]:
    """Images in rows on white. All images are of one size; rows may differ in length.

    Raises:
      ValueError: there are no images, or they differ in size.
    """
    sizes = {image.shape for row in rows for image in row}
    if len(sizes) != 1:
        raise ValueError(f"expected images of one size, got {sorted(sizes) or 'none'}")
    ((height, width, _),) = sizes
    longest = max(len(row) for row in rows)
    canvas = np.full((len(rows) * (height + gap) - gap, longest * (width + gap) - gap, 3), WHITE, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            canvas[top : top + height, left : left + width] = image
    return canvas


def labelled(
    rows: Sequence[tuple[str, UInt8[np.ndarray, "_ H W 3"]]],
    columns: Sequence[str] = (),
    swatches: Sequence[UInt8[np.ndarray, "3"] | None] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """A grid with a name left of each row and one above each column.

    Args:
      rows: name and images of each row.
      columns: names of the columns, from the left.
      swatches: a colour for each row, shown beside its name.

    Raises:
      ValueError: as `grid`.
    """
    gap = 2
    picture = grid([images for _, images in rows], gap)
    height, width = rows[0][1].shape[1:3]
    font = ImageFont.load_default(size=max(10, min(14, height // 5)))
    margin = int(max(font.getlength(name) for name, _ in rows)) + (26 if swatches else 12)
    top = 18 if columns else 0
    canvas = Image.new("RGB", (picture.shape[1] + margin, picture.shape[0] + top), (WHITE,) * 3)
    canvas.paste(Image.fromarray(picture), (margin, top))
    draw = ImageDraw.Draw(canvas)
    for r, (name, _) in enumerate(rows):
        middle = top + r * (height + gap) + height // 2
        draw.text((margin - 6, middle), name, fill=(40, 40, 40), font=font, anchor="rm")
        color = swatches[r] if swatches else None
        if color is not None:
            draw.rectangle((2, middle - 5, 12, middle + 5), fill=tuple(int(c) for c in color))
    for c, name in enumerate(columns):
        draw.text((margin + c * (width + gap) + width // 2, 9), name, fill=(110, 110, 110), font=font, anchor="mm")
    return np.asarray(canvas)


def rollout_picture(
    true: UInt8[np.ndarray, "t H W 3"],
    predicted: UInt8[np.ndarray, "steps H W 3"],
    masks: Float[np.ndarray, "t k h w"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """True frames above the imagined ones and their difference; with masks, which factor sees what in the true frames.

    Args:
      true: context frames, then the true frames of the steps.
      predicted: the imagined frames of the steps.
      masks: slot attention on the true frames.
    """
    context = len(true) - len(predicted)
    # Rows start together at the last context frame, which the model still sees.
    shown = true[context - 1 :] if context else true
    lead = shown[:1] if context else shown[:0]
    rows = [
        ("true", shown),
        ("imagined", np.concatenate([lead, predicted])),
        ("difference", np.concatenate([np.zeros_like(lead), difference(predicted, true[context:])])),
    ]
    if masks is not None:
        rows.append(("factors", overlay(shown, masks[len(true) - len(shown) :])))
    names = (["seen"] if context else []) + [f"+{step}" for step in range(1, len(predicted) + 1)]
    factor = max(1, 64 // true.shape[1])
    return labelled([(name, enlarge(images, factor)) for name, images in rows], names)


def slot_picture(
    frames: UInt8[np.ndarray, "t H W 3"], masks: Float[np.ndarray, "t k h w"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The frames, then for each factor a row that shows what it attends to."""
    factor = max(1, 64 // frames.shape[1])
    rows = [("frames", frames)] + [(f"factor {k}", row) for k, row in enumerate(spotlights(frames, masks))]
    names = [str(t) for t in range(len(frames))]
    return labelled([(name, enlarge(images, factor)) for name, images in rows], names, [None, *colors(masks.shape[1])])


__all__ = [
    "colors",
    "difference",
    "enlarge",
    "grid",
    "labelled",
    "overlay",
    "rollout_picture",
    "slot_picture",
    "spotlights",
    "spread",
    "to_uint8",
]
