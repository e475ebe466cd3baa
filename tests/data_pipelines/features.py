"""A small folder of frames with features, as the network of a user might have made them: a fixed projection."""

from pathlib import Path

import numpy as np

SHAPE = (4, 6, 5)  # of the features of a frame of 16x24 pixels


def video(number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames in which a square moves, and features of their patches of 4x4 pixels."""
    frames = np.full((length, 16, 24, 3), 20 * number % 250, np.uint8)
    for t in range(length):
        x = (t + 3 * number) % 20
        frames[t, 4:8, x : x + 4] = (250, 200, 10)
    patches = frames.reshape(length, 4, 4, 6, 4, 3).swapaxes(2, 3).reshape(length, 4, 6, 48)
    projection = np.random.default_rng(0).normal(size=(48, SHAPE[-1]))
    return frames, (patches / 255 @ projection).astype(np.float32)


def write_features(root: Path, lengths: list[int]) -> Path:
    for number, length in enumerate(lengths):
        folder = root / f"part {number % 2}" / f"video {number}"
        folder.mkdir(parents=True)
        for name, array in zip(("frames", "features"), video(number, length), strict=True):
            np.save(folder / f"{name}.npy", array)
    return root
