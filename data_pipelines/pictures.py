"""Pictures of any size as frames of one size, and folders of pictures as videos. Files are data of a stranger."""

import math
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_pipelines.errors import DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
EPSILON = 1e-6  # seconds

Frame = UInt8[np.ndarray, "H W 3"]


class VideoError(DataError):
    """A file that is of no use; why, in a few words."""


@dataclass(frozen=True)
class Fit:
    """How frames of any size become frames of one size.

    Attributes:
      height, width: in pixels.
      mode: `crop` fills the frame and cuts off what lies over, `letterbox` shows everything between black bars,
        `stretch` changes the shape.
    """

    height: int
    width: int
    mode: str = "crop"

    def scaled(self, height: float, width: float) -> tuple[int, int]:
        """Height and width to which a picture of that shape is scaled before it is cropped or padded."""
        if self.mode == "stretch":
            return self.height, self.width
        choose = max if self.mode == "crop" else min
        scale = choose(self.height / height, self.width / width)
        size = round(height * scale), round(width * scale)
        least = (self.height, self.width) if self.mode == "crop" else (1, 1)
        return max(size[0], least[0]), max(size[1], least[1])

    def place(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Frame:
        """Crops or pads a scaled picture, about its middle."""
        height, width = pixels.shape[:2]
        top, left = max(height - self.height, 0) // 2, max(width - self.width, 0) // 2
        pixels = pixels[top : top + self.height, left : left + self.width]
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        top, left = (self.height - pixels.shape[0]) // 2, (self.width - pixels.shape[1]) // 2
        frame[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return frame


@dataclass(frozen=True)
class Facts:
    """Of a video, before it is read.

    Attributes:
      seconds: it lasts, as far as the file says; 0 where it does not.
      rate: mean number of frames a second.
      height, width: as shown, in pixels.
      codec: its name.
      notes: what is unusual about it.
    """

    seconds: float
    rate: float
    height: float
    width: float
    codec: str
    notes: tuple[str, ...] = ()


def check_file(path: Path) -> None:
    """Refuses what is no file that can be read.

    Raises:
      VideoError: it cannot be read, is empty, or is no plain file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise VideoError("not a file")
        if status.st_size == 0:
            raise VideoError("empty")
        with path.open("rb"):
            pass
    except OSError as error:
        raise VideoError(f"cannot be read: {error.strerror or error}") from error


@dataclass
class PictureFolder:
    """A folder of pictures that are the frames of one video, in the order of the numbers in their names.

    Attributes:
      path: of the folder.
      names: of its pictures.
      notes: what went wrong while they were read, filled by `frames`.
    """

    path: Path
    names: Sequence[str]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = sorted(self.names, key=_by_numbers)

    def facts(self, rate: float) -> Facts:
        """Of as many pictures a second.

        Raises:
          VideoError: none of them can be read.
        """
        for name in self.names:
            try:
                height, width = _load_picture(self.path / name).shape[:2]
            except VideoError:
                continue
            return Facts(len(self.names) / rate, rate, height, width, "pictures")
        raise VideoError("none of its pictures can be read")

    def frames(
        self, fit: Fit, rate: float, start: float = 0.0, stop: float = math.inf
    ) -> Iterator[tuple[float, Frame]]:
        """Its pictures as frames, `rate` a second; arguments and result as of a `VideoFile`.

        A picture that cannot be read is left out, which leaves a gap in the times.
        """
        first = math.ceil(start * rate - EPSILON)
        for number, name in enumerate(self.names):
            if number < first or number / rate >= stop - EPSILON:
                continue
            try:
                pixels = _load_picture(self.path / name)
            except VideoError as error:
                self.notes.append(f"{name}: {error}")
                continue
            yield number / rate, fit_picture(pixels, fit)


def fit_picture(pixels: UInt8[np.ndarray, "h w 3"], fit: Fit) -> Frame:
    """A picture of any size as a frame; pixels are averaged where it shrinks."""
    from PIL import Image

    height, width = fit.scaled(*pixels.shape[:2])
    if (height, width) == pixels.shape[:2]:
        return fit.place(pixels)
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    filtering = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return fit.place(np.asarray(Image.fromarray(pixels).resize((width, height), filtering)))


def read_picture(source: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of an image file or of a file object, upright, on black where it is transparent.

    Raises:
      VideoError: it is no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(source, formats=("PNG", "JPEG")) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise VideoError("not a picture that can be read (neither PNG nor JPEG)") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"not a picture that can be read ({reason_of(error)})") from error
    if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        grey = (np.asarray(upright).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if "A" in upright.mode or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright)
    return np.asarray(upright.convert("RGB"))


def _load_picture(path: Path) -> np.ndarray:
    check_file(path)
    return read_picture(path)


def _by_numbers(name: str) -> list[tuple[int, Any]]:
    """Sorts `frame 9` before `frame 10`."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def reason_of(error: BaseException) -> str:
    """What an error says, in one short line."""
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
    return " ".join(text.split())[:120]


__all__ = [
    "EPSILON",
    "PICTURE_SUFFIXES",
    "Facts",
    "Fit",
    "Frame",
    "PictureFolder",
    "VideoError",
    "check_file",
    "fit_picture",
    "read_picture",
    "reason_of",
]
