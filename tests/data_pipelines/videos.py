"""Small video files of every kind that a folder may hold."""

import os
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 200, 30), (30, 30, 220), (110, 110, 110)


def walking(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """A bright square that walks to the right over a textured ground, a red mark in the upper left corner."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 120, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    ground = ground.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    frames = []
    for t in range(count):
        frame = ground.copy()
        x = (3 * t + 5 * seed) % max(width - 12, 1)
        frame[height // 2 : height // 2 + 10, x : x + 10] = 250
        frame[: height // 4, : width // 4] = RED
        frames.append(frame)
    return frames


def plain(count: int, color: Sequence[int], height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames of one color."""
    return [np.full((height, width, 3), color, np.uint8) for _ in range(count)]


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 10,
    times: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    sound: bool = False,
) -> Path:
    """Encodes frames; `times` in seconds in place of an even rate."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        frames = list(frames)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if sound:
            add_sound(container)
        for number, pixel in enumerate(frames):
            kind = "rgba" if pixel.shape[-1] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(pixel, format=kind)
            frame.pts = number if times is None else round(times[number] * 1000)
            frame.time_base = Fraction(1, rate) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def add_sound(container: Any, seconds: float = 1.0) -> None:
    """A stream of silence."""
    stream = container.add_stream("aac", rate=8000)
    stream.layout = "mono"
    samples = int(8000 * seconds) // 1024
    for number in range(samples):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, number * 1024, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_sound(path: Path) -> Path:
    """A file that has sound only."""
    with av.open(str(path), "w") as container:
        add_sound(container)
    return path


def turn(path: Path, degrees: int) -> Path:
    """Says in the header of an mp4 file that it is to be shown turned clockwise, as telephones do."""
    matrices = {
        90: (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000),
        180: (-0x10000, 0, 0, 0, -0x10000, 0, 0, 0, 0x40000000),
    }
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    content[place : place + 36] = struct.pack(">9i", *matrices[degrees])
    path.write_bytes(content)
    return path


def write_pictures(folder: Path, frames: Sequence[np.ndarray], suffix: str = "png") -> Path:
    """A folder of numbered pictures, the numbers not filled up with zeros."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame {number}.{suffix}", quality=95)
    return folder


def write_zoo(root: Path) -> None:
    """A folder of more than 25 files and folders of pictures: what people have, and what is broken."""
    root.mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    write_video(root / "plain.mp4", walking(24, seed=1))
    write_video(root / "sound.mp4", walking(24, seed=2), sound=True)
    write_video(root / "deep" / "vp9.webm", walking(24, seed=3), "libvpx-vp9")
    write_video(root / "deep" / "er" / "mpeg4.mov", walking(24, seed=4), "mpeg4")
    write_video(root / "mjpeg.avi", walking(24, seed=5), "mjpeg", "yuvj420p")
    write_video(root / "lossless.mkv", walking(24, seed=6), "ffv1")
    write_video(root / "moving.gif", walking(24, seed=7), "gif", "rgb8")
    write_video(root / "ten bits.mkv", walking(24, seed=8), "ffv1", "yuv420p10le")
    write_video(root / "alpha.mov", [with_alpha(frame) for frame in walking(24, seed=9)], "png", "rgba")
    write_video(root / "odd size.mkv", walking(24, 37, 53, seed=10), "ffv1", "yuv444p")
    write_video(root / "Ünïcode 视频 'name'.mp4", walking(24, seed=11))
    write_video(root / "UPPER.MP4", walking(24, seed=12))
    write_video(root / "upright.mkv", walking(24, 96, 40, seed=13), "ffv1")
    turn(write_video(root / "turned.mp4", walking(24, seed=14)), 90)
    times = np.cumsum([0, *([0.05, 0.3] * 12)])[:24]
    write_video(root / "uneven.mp4", walking(24, seed=15), times=times.tolist())
    interlaced = {"flags": "+ilme+ildct", "top": "1"}
    write_video(root / "interlaced.mkv", walking(24, seed=16), "mpeg2video", rate=25, options=interlaced)
    write_video(root / "wide pixels.mp4", walking(24, seed=17), aspect=Fraction(2, 1))
    write_video(root / "long.mp4", walking(120, seed=18))
    write_pictures(root / "frames png", walking(12, seed=19))
    write_pictures(root / "deep" / "frames jpg", walking(12, seed=20), "jpg")
    # What is of no use.
    write_video(root / "one frame.mp4", walking(1))
    write_video(root / "short.mp4", walking(5))
    write_sound(root / "only sound.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("This is no video.\n" * 100)
    whole = write_video(root / "cut off.mp4", walking(24)).read_bytes()
    (root / "cut off.mp4").write_bytes(whole[: len(whole) // 2])  # the index stands at the end
    cut = write_video(root / "cut off.avi", walking(40), "mjpeg", "yuvj420p").read_bytes()
    (root / "cut off.avi").write_bytes(cut[: len(cut) // 2])
    (root / "playlist.mp4").write_text(f"ffconcat version 1.0\nfile '{root / 'plain.mp4'}'\n")
    os.mkfifo(root / "pipe.mp4")
    (root / "link.mp4").symlink_to(root / "plain.mp4")
    outside = root.parent / "outside"
    outside.mkdir()
    write_video(outside / "secret.mp4", walking(24))
    (root / "link out").symlink_to(outside)
    write_pictures(root / "one picture", walking(1))
    broken = write_pictures(root / "broken pictures", walking(12, seed=21))
    (broken / "frame 11.png").write_bytes(b"\x89PNG nothing")
    (root / "two\nlines \x1b[2J.mp4").touch()
    with open(os.fsencode(root) + b"/not utf-8 \xff.mp4", "wb"):
        pass
    (root / "notes.txt").write_text("not a video")
    (root / ".hidden.mp4").write_text("not seen")


def with_alpha(frame: np.ndarray) -> np.ndarray:
    return np.concatenate([frame, np.full((*frame.shape[:2], 1), 200, np.uint8)], axis=-1)
