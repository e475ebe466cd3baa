"""A random player of one level."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8, UInt8

from data_pipelines.errors import DataError, missing_extra
from data_pipelines.procgen.qt import load_qt

try:
    load_qt()  # before EnvPool's Procgen is looked up
    import envpool
except ImportError as error:
    raise missing_extra("procgen", error) from error

_NATIVE_SIZE = 64
# The eight directions and standing still. Of the six special buttons only Starpilot uses any: 10 shoots back, 9 and the
# others ahead.
_MOVES = tuple(range(9))
_ACTIONS = {"bigfish": _MOVES, "leaper": _MOVES, "starpilot": (*_MOVES, 9, 10)}


@dataclass(frozen=True)
class Episode:
    """One episode; `actions` and `rewards` belong to the frame at which the action was chosen."""

    frames: UInt8[np.ndarray, "t H W 3"]
    actions: Int8[np.ndarray, "t"]
    rewards: Float32[np.ndarray, "t"]


def make_level(game: str, level: int, frame_size: int) -> Any:
    """An EnvPool environment that knows one level only. Easy mode, no backgrounds.

    Raises:
      DataError: the Qt libraries are missing.
    """
    options: dict[str, Any] = {}
    if frame_size != _NATIVE_SIZE:
        options = {"render_mode": "rgb_array", "render_width": frame_size, "render_height": frame_size}
    try:
        return envpool.make(
            f"{game.capitalize()}Easy-v0",
            env_type="gymnasium",
            num_envs=1,
            num_threads=1,
            start_level=level,
            num_levels=1,
            use_backgrounds=False,
            channel_first=False,
            **options,
        )
    except ImportError as error:
        raise missing_extra("procgen", error) from error


def play(
    game: str, level: int, frame_size: int, action_repeat: float, rng: np.random.Generator, max_frames: int
) -> Generator[Episode, None, None]:
    """Plays episodes of one level for ever. An action is kept for a geometric time of mean `action_repeat` steps.

    Args:
      game: bigfish, leaper or starpilot.
      level: Procgen's level number.
      frame_size: pixels per side.
      action_repeat: frames.
      rng: the player's choices.
      max_frames: an episode that is still going is left after so many frames.
    """
    env = make_level(game, level, frame_size)
    choices = np.array(_ACTIONS[game], np.int8)
    try:
        while True:
            observation, info = env.reset()
            if int(info["level_seed"][0]) != level:
                raise DataError(
                    f"EnvPool plays level {int(info['level_seed'][0])} of {game} where level {level} was asked for"
                )
            frames, actions, rewards, over = [], [], [], False
            action = rng.choice(choices)
            while True:
                frame = observation if frame_size == _NATIVE_SIZE else env.render()
                frames.append(np.array(frame[0], np.uint8))
                actions.append(action)
                if over or len(frames) == max_frames:
                    # The last frame of an episode shows how it ended; what would be done next is never seen.
                    rewards.append(0.0)
                    break
                observation, reward, terminated, truncated, _ = env.step(np.array([action], np.int32))
                rewards.append(float(reward[0]))
                over = bool(terminated[0] or truncated[0])
                if rng.random() < 1 / action_repeat:
                    action = rng.choice(choices)
            yield Episode(np.stack(frames), np.array(actions, np.int8), np.array(rewards, np.float32))
    finally:
        env.close()
