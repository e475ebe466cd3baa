"""What happens in a clip of sprites: actions, paths, the camera."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int8

from data_pipelines.sprites.definition import STEPS

CAMERA_REACH = 0.25  # of the width of the frame, to either side


@dataclasses.dataclass(frozen=True)
class Walls:
    """What the shapes stay within, and how fast they go, in pixels.

    Attributes:
      left, right, bottom: the upper wall lies at 0.
      speed: pixels a frame.
    """

    left: float
    right: float
    bottom: float
    speed: float

    @classmethod
    def around(cls, height: int, width: int, speed: float, camera_speed: float) -> "Walls":
        """The edges of the frame, or of all that a panning camera sees."""
        reach = CAMERA_REACH * width if camera_speed else 0.0
        return cls(-reach, width + reach, height, speed)

    def bounds(self, sizes: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
        """Lowest and highest center (x, y) of shapes of these extents."""
        half = np.asarray(sizes, np.float64)[:, None] / 2
        return np.array([self.left, 0.0]) + half, np.array([self.right, self.bottom]) - half


def choose_actions(
    length: int, count: int, persistence: float, rng: np.random.Generator
) -> Int8[np.ndarray, "length count"]:
    """Actions that are kept for a geometric time of mean `persistence` frames, then exchanged for another one."""
    choices = len(STEPS)
    change = rng.random((length, count)) < 1 / persistence
    steps = np.where(change, rng.integers(1, choices, (length, count)), 0)
    steps[0] = rng.integers(choices, size=count)
    return (np.cumsum(steps, axis=0) % choices).astype(np.int8)


def walk(
    actions: Int8[np.ndarray, "t n"], sizes: Float[np.ndarray, " n"], walls: Walls, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "t n 2"], Int8[np.ndarray, "t n"]]:
    """Centers of shapes that start anywhere and that the walls stop; shapes pass over each other.

    Returns:
      The centers, and the actions as far as they had an effect: 0 where a wall took more than half of a step.
    """
    low, high = walls.bounds(sizes)
    steps = walls.speed * np.asarray(STEPS, np.float64)[actions]
    centers = np.empty((len(actions) + 1, *steps.shape[1:]))
    centers[0] = rng.uniform(low, high)
    for t, step in enumerate(steps):
        centers[t + 1] = np.clip(centers[t] + step, low, high)
    moved = np.abs(np.diff(centers, axis=0)).max(axis=-1) > walls.speed / 2
    return centers[:-1].astype(np.float32), np.where(moved, actions, 0).astype(np.int8)


def elsewhere(
    centers: Float[np.ndarray, "t n 2"], sizes: Float[np.ndarray, " n"], walls: Walls, rng: np.random.Generator
) -> Float[np.ndarray, "t n 2"]:
    """The same paths from other starts, every one anywhere within the walls: the same moves in other places."""
    low, high = walls.bounds(sizes)
    paths = np.asarray(centers, np.float64)
    least, most = low - paths.min(axis=0), high - paths.max(axis=0)
    shift = rng.uniform(least, np.maximum(most, least))
    return (paths + shift).astype(np.float32)


def pan(length: int, width: int, camera_speed: float, rng: np.random.Generator) -> Float[np.ndarray, " length"]:
    """How far to the right of the middle the camera looks: a triangle wave of a random phase."""
    reach = CAMERA_REACH * width
    phase = rng.uniform(0, 4 * reach)
    return np.abs((phase + camera_speed * np.arange(length)) % (4 * reach) - 2 * reach) - reach


__all__ = ["CAMERA_REACH", "Walls", "choose_actions", "elsewhere", "pan", "walk"]
