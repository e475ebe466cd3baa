"""Transfer, on a model whose prediction is what the actions say."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from flam_jax.dynamics.interface import ModelSpec
from flam_jax.evaluation.evaluators.transfer import transfer
from flam_jax.world_model import WorldModel

SIZE, CONTEXT, LENGTH = 8, 2, 5


@struct.dataclass
class Painter(WorldModel):
    """Its action is how bright the next frame is (or, when `leaky`, that and a constant of the clip), and it paints
    that: an honest action may be used in any clip of the same true actions."""

    leaky: bool = struct.field(pytree_node=False, default=False)

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(1, 2, "inferred", "features", ())

    def infer_actions(self, frames: Any, true_actions: Any = None) -> jnp.ndarray:
        value = jnp.asarray(frames, jnp.float32) / 255
        marked = value[:, 1:, 0, 0, 0]  # the pixel that the true action sets
        place = value[:, 1:, -1, -1, 0] if self.leaky else 0.0 * marked
        return jnp.stack([marked, place], axis=-1)[:, :, None]

    def rollout(self, context: Any, actions: Any, true_actions: Any = None) -> jnp.ndarray:
        first = jnp.asarray(context, jnp.float32)[:, -1:] / 255
        shape = (actions.shape[0], actions.shape[1], SIZE, SIZE, 3)
        frames = jnp.broadcast_to(first, shape).at[:, :, 0, 0].set(actions[:, :, 0, :1])
        if self.leaky:
            frames = frames.at[:, :, -1, -1].set(actions[:, :, 0, 1:])
        return frames


def batch(clips: int = 4) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (clips, LENGTH))
    both = []
    for seed in (1, 2):
        place = np.random.default_rng(seed).integers(0, 256, (clips, 1))
        frames = np.zeros((clips, LENGTH, SIZE, SIZE, 3), np.uint8)
        frames[:, :, 0, 0] = shown[..., None]
        frames[:, :, -1, -1] = place[..., None]
        both.append({"frames": frames, "actions": shown[..., None]})
    return both[0], both[1], clips - 1


def found(leaky: bool, *batches: Any) -> dict[str, Any]:
    nothing: Any = None
    painter = Painter(nothing, nothing, nothing, nothing, (SIZE, SIZE), leaky=leaky)
    return transfer(painter, batches, CONTEXT)


def test_an_honest_action_may_be_taken_from_another_clip() -> None:
    result = found(False, batch(), batch())
    assert len(result["psnr"]) == LENGTH - CONTEXT
    assert result["psnr_mean"] > 58
    assert result["exchanged"]["psnr_mean"] < 40


def test_an_action_that_tells_the_place_is_worth_less_elsewhere() -> None:
    assert found(True, batch())["psnr_mean"] < 40


def test_filling_does_not_count() -> None:
    record, displaced, _ = batch()
    displaced["frames"] = displaced["frames"].copy()
    displaced["frames"][-1] = 255 - displaced["frames"][-1]
    assert found(False, (record, displaced, 3))["psnr_mean"] > 58
    assert found(False, (record, displaced, 4))["psnr_mean"] < 58
