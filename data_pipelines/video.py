"""Frames of video files, in order of time, at one rate and one size.

Files are data of a stranger: only the container formats below are read, never a playlist that names other files.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import missing_extra
from data_pipelines.pictures import EPSILON, Facts, Fit, Frame, VideoError, check_file, reason_of

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".gif", ".m4v")
# FFmpeg's names of their formats. Without this list a file named x.mp4 that is a playlist would be followed.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
# A frame that is shown for longer than this many seconds is shown for so long; then comes a gap.
LONGEST_HOLD = 10.0
_ROUNDING = 6e-4  # seconds: some formats count milliseconds


@dataclass
class VideoFile:
    """A video file.

    Attributes:
      path: of the file.
      notes: what went wrong while it was read, filled by `frames`.
    """

    path: Path
    notes: list[str] = field(default_factory=list)

    def facts(self) -> Facts:
        """Opens it and decodes its first frame.

        Raises:
          VideoError: it has no frame that can be decoded.
        """
        with self._open() as (container, stream):
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise VideoError("no frame can be decoded")
            picture: Any = first[1]
            rate = float(stream.average_rate or stream.guessed_rate or 0) or 25.0
            seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
            height, width = _shown_size(picture, stream)
            notes = [f"turned clockwise by {-picture.rotation % 360} degrees"] if picture.rotation % 360 else []
            notes += ["interlaced: one field of two is used"] if picture.interlaced_frame else []
            notes += ["transparency is dropped"] if _has_alpha(picture) else []
            return Facts(max(seconds, 0.0), rate, height, width, stream.codec_context.name, tuple(notes))

    def frames(
        self, fit: Fit, rate: float = 0.0, start: float = 0.0, stop: float = math.inf
    ) -> Iterator[tuple[float, Frame]]:
        """Decodes a stretch of it.

        Args:
          fit: size of the frames.
          rate: frames a second: at every time k / rate the frame that is shown then. 0: every frame of the file.
          start, stop: the stretch in seconds since the first frame; `stop` is not in it.

        Yields:
          Seconds since the first frame of the file, and the frame. After a gap of more than `LONGEST_HOLD` seconds
          times go on at its end.

        Raises:
          VideoError: the file cannot be opened.
        """
        shown = ((seconds, length, _Lazy(picture, fit)) for seconds, length, picture in self._pictures(start, stop))
        for seconds, picture in _at_rate(shown, rate, start, stop):
            yield seconds, picture.frame

    def _pictures(self, start: float, stop: float) -> Iterator[tuple[float, float, Any]]:
        """Time, length and decoded picture of every frame that may be shown between start and stop."""
        with self._open() as (container, stream):
            origin = float((stream.start_time or 0) * stream.time_base)
            usual = 1 / (float(stream.average_rate or stream.guessed_rate or 0) or 25.0)
            pictures = self._decoded(container, stream, origin + start if start else None)
            seconds = -usual
            for time, picture in pictures:
                seconds = seconds + usual if time is None else time - origin
                if seconds >= stop:
                    return
                yield seconds, usual, (picture, stream)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        av = _av()
        check_file(self.path)
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        try:
            container = av.open(str(self.path.absolute()), options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"not a video that can be read ({reason_of(error)})") from error
        with container:
            covers = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & covers]
            if not streams:
                raise VideoError("no video in it" + (", only sound" if container.streams.audio else ""))
            stream = streams[0]
            stream.codec_context.thread_count = 1  # several processes read at once
            yield container, stream

    def _decoded(self, container: Any, stream: Any, start: float | None = None) -> Iterator[tuple[float | None, Any]]:
        """Time in the file's clock and picture; from the key frame before `start` on, where the file can do that."""
        av = _av()
        if start is not None:
            seeks = _seek(container, stream, start)
            if not seeks:
                container.seek(0, backward=True, any_frame=False)
        damaged, packets = 0, container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self._note(f"the file ends early ({reason_of(error)})")
                packet = None
            if packet is None:
                break
            try:
                pictures = packet.decode()
            except (av.FFmpegError, ValueError):
                damaged += 1
                continue
            for picture in pictures:
                yield picture.time, picture
        if damaged:
            self._note(f"{damaged} packets of it cannot be decoded")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass
class _Lazy:
    """A decoded picture that becomes a frame when it is asked for, once."""

    picture: Any
    fit: Fit
    _frame: Any = None

    @property
    def frame(self) -> Frame:
        if self._frame is None:
            self._frame = _convert(self.picture, self.fit)
        return self._frame


def _convert(decoded: tuple[Any, Any], fit: Fit) -> Frame:
    picture, stream = decoded
    turns = round(picture.rotation / 90) % 4
    height, width = fit.scaled(*_shown_size(picture, stream))
    if turns % 2:
        height, width = width, height
    if picture.interlaced_frame:
        from PIL import Image

        field_rows = Image.fromarray(picture.to_ndarray(format="rgb24")[::2])
        pixels = np.asarray(field_rows.resize((width, height), Image.Resampling.BILINEAR))
    else:
        pixels = picture.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    return fit.place(np.rot90(pixels, turns))


def _shown_size(picture: Any, stream: Any) -> tuple[float, float]:
    """Height and width with square pixels, upright."""
    ratio = float(stream.sample_aspect_ratio or 1) or 1.0
    size = picture.height, picture.width * ratio
    return (size[1], size[0]) if round(picture.rotation / 90) % 2 else size


def _at_rate(
    shown: Iterator[tuple[float, float, _Lazy]], rate: float, start: float, stop: float
) -> Iterator[tuple[float, _Lazy]]:
    """What is shown at every time k / rate; where times go back or stand still, the later frame counts."""
    if not rate:
        yield from ((seconds, picture) for seconds, _, picture in shown if start - EPSILON <= seconds < stop)
        return
    held: tuple[float, float, _Lazy] | None = None
    number = math.ceil(start * rate - EPSILON)

    def until(end: float) -> Iterator[tuple[float, _Lazy]]:
        nonlocal number
        assert held is not None
        while number / rate < min(end, held[0] + LONGEST_HOLD) - _ROUNDING:
            if number / rate >= held[0] - _ROUNDING:
                yield number / rate, held[2]
            number += 1
        number = max(number, math.ceil((min(end, stop) - _ROUNDING) * rate))

    for seconds, length, picture in shown:
        if held is not None:
            yield from until(min(seconds, stop))
        held = (seconds, length, picture)
    if held is not None:
        yield from until(min(held[0] + held[1], stop))


def _seek(container: Any, stream: Any, start: float) -> bool:
    """Goes to the key frame before `start`; whether it is there, which not every file tells truly."""
    av = _av()
    target = int(start / stream.time_base)
    try:
        container.seek(target, stream=stream, backward=True)
        first = next((frame.time for packet in container.demux(stream) for frame in packet.decode()), None)
        container.seek(target, stream=stream, backward=True)
    except (av.FFmpegError, OSError):
        return False
    return first is not None and first <= start + EPSILON


def _has_alpha(picture: Any) -> bool:
    return any(component.is_alpha for component in picture.format.components)


def _av() -> Any:
    try:
        import av
        import av.logging
    except ImportError as error:
        raise missing_extra("video", error) from error
    av.logging.set_level(None)  # its warnings are told as notes
    return av


__all__ = ["LONGEST_HOLD", "VIDEO_SUFFIXES", "VideoFile"]
