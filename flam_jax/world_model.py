"""A trained model as pure functions: encode, infer latent actions, step, roll out, decode.

`WorldModel` is a pytree whose leaves are the parameters, so it can be passed through `jax.jit`, sharded and averaged
like any other; the modules and the numbers of the configuration are static. Every method is a pure function, compiled
on its first call and free to be nested in other `jit`, `vmap` and `scan`. It knows nothing of data sets, and any model
of the house that offers the methods of `dynamics/` (factorize, infer_actions, init_cache, step) fits in.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8

from flam_jax import build
from flam_jax.baselines.action_conditioned import ActionConditioned
from flam_jax.baselines.object_centric import ObjectCentric
from flam_jax.config import Config, from_json

# The fields of the structs below carry no array types: jax builds them with placeholders inside its transformations.


@struct.dataclass
class RolloutState:
    """What `step` carries from frame to frame.

    Attributes:
      cache: the dynamics model's memory of all frames before the current one.
      features: the current frame's quantized features, `f32[b h w c]`.
      slots: the current frame's slots, `f32[b k d]`, of a model that goes on from them; None of the others, which go
        on from the features.
    """

    cache: Any
    features: Any
    slots: Any = None


@struct.dataclass
class Observation:
    """What the model sees in given frames, all of them at once (parallel over time).

    Attributes:
      features: quantized features `f32[b t h w c]`.
      slots: `f32[b t k d]`.
      attention: slot masks `f32[b t k h w]`, which sum to 1 over k.
      action_mean: means of the latent actions `f32[b t-1 k a]`.
      action_kl: what they say, `f32[b t-1 k]` in nats.
    """

    features: Any
    slots: Any
    attention: Any
    action_mean: Any
    action_kl: Any


@struct.dataclass
class WorldModel:
    """A tokenizer and a dynamics model with their parameters."""

    tokenizer_params: Any
    dynamics_params: Any
    tokenizer: nn.Module = struct.field(pytree_node=False)
    dynamics: nn.Module = struct.field(pytree_node=False)
    frame_size: tuple[int, int] = struct.field(pytree_node=False)  # height and width in pixels
    quantize_predictions: bool = struct.field(pytree_node=False, default=True)

    @classmethod
    def from_parts(cls, config: Config, tokenizer_params: Any, dynamics_params: Any) -> "WorldModel":
        """A world model of parameters that are at hand, for use during training.

        Args:
          config: the run's configuration.
          tokenizer_params: the tokenizer's `params` collection.
          dynamics_params: the dynamics model's `params` collection.
        """
        return cls(
            tokenizer_params=tokenizer_params,
            dynamics_params=dynamics_params,
            tokenizer=build.build_tokenizer(config),
            dynamics=build.build_dynamics(config),
            frame_size=config.data.frame_size,
            quantize_predictions=config.dynamics.quantize_predictions,
        )

    @classmethod
    def restore(cls, workdir: str | Path) -> "WorldModel":
        """Reads the newest checkpoints of both stages from a run's folder.

        Raises:
          FileNotFoundError: the folder holds no finished configuration or no checkpoint of a stage.
          flam_jax.ConfigError: its configuration is not of this version.
        """
        from flam_jax import checkpoints  # brings orbax, which only a restored model needs

        workdir = Path(workdir)
        file = workdir / "config.json"
        if not file.is_file():
            raise FileNotFoundError(f"{workdir}: no config.json there; expected the --workdir of a trained run")
        config = from_json(file.read_text(encoding="utf-8"))
        tokenizer_params = checkpoints.restore_parameters(workdir / "tokenizer")
        dynamics_params = checkpoints.restore_parameters(workdir / "dynamics")
        return cls.from_parts(config, tokenizer_params, dynamics_params)

    # Frames and features.

    @jax.jit
    def encode(self, frames: UInt8[Array, "b t H W 3"]) -> Float[Array, "b t h w c"]:
        """Frames (0..255) to quantized features.

        Raises:
          ValueError: the frames are not of the configuration's size.
        """
        self._check_frames(frames)
        return self._tokenizer(frames.astype(jnp.float32) / 255.0, method="encode")

    @jax.jit
    def decode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b H W 3"]:
        """Quantized features to frames in [0, 1]."""
        return jnp.clip(self._tokenizer(features, method="decode"), 0.0, 1.0)

    @jax.jit
    def reconstruct(self, frames: UInt8[Array, "b t H W 3"]) -> Float[Array, "b t H W 3"]:
        """Encodes and decodes: the tokenizer's ceiling, no prediction can look better. Frames in [0, 1]."""
        return self.decode(self.encode(frames))

    # What the model sees in frames.

    @property
    def needs_true_actions(self) -> bool:
        """Whether the model is told the true actions instead of inferring latent ones."""
        return isinstance(self.dynamics, ActionConditioned)

    @jax.jit
    def observe(
        self, frames: UInt8[Array, "b t H W 3"], true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> Observation:
        """Features, slots, masks and the posterior of the latent actions of true frames.

        Args:
          frames: at least two frames, 0..255.
          true_actions: numbers of the actions taken in these frames, for a model that `needs_true_actions`; others take
            no notice.

        Raises:
          ValueError: the frames are not of the configuration's size, or fewer than two; true actions are missing.
        """
        if frames.ndim == 5 and frames.shape[1] < 2:
            raise ValueError(f"a latent action stands between two frames; got frames of shape {frames.shape}")
        features = self.encode(frames)
        factors = self._dynamics(features, method="factorize")
        mean, kl = self._actions(factors.slots, true_actions)
        return Observation(
            features=features, slots=factors.slots, attention=factors.attention, action_mean=mean, action_kl=kl
        )

    @jax.jit
    def infer_actions(
        self, frames: UInt8[Array, "b t H W 3"], true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> Float[Array, "b t-1 k a"]:
        """Means of the latent actions between consecutive true frames (PAPER: the IDM); arguments as `observe`.

        Raises:
          ValueError: as `observe`.
        """
        return self.observe(frames, true_actions).action_mean

    @jax.jit
    def factor_masks(self, frames: UInt8[Array, "b t H W 3"]) -> Float[Array, "b t k h w"]:
        """Slot attention over the patches of every frame; sums to 1 over the factors k."""
        return self._dynamics(self.encode(frames), method="factorize").attention

    # Imagination.

    @jax.jit
    def start(
        self, context: UInt8[Array, "b t H W 3"], true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> RolloutState:
        """The state after true frames, with the latent actions between them inferred.

        Args:
          context: one or more frames, 0..255; the last of them is the current one.
          true_actions: as in `observe`.

        Raises:
          ValueError: the frames are not of the configuration's size.
        """
        features = self.encode(context)
        cache = self._dynamics(features[:, 0], method="init_cache")
        slots = self._dynamics(features, method="factorize").slots  # compiled away where nothing needs them
        if features.shape[1] > 1:
            actions, _ = self._actions(slots, true_actions)

            def consume(cache: Any, frame: Any) -> tuple[Any, None]:
                return self._dynamics(cache, *frame, method="step")[0], None

            # Time leads in the scan. The current frame is left for the first call of `step`, which brings its action.
            past = (jnp.moveaxis(features[:, :-1], 1, 0), jnp.moveaxis(actions, 1, 0))
            cache, _ = jax.lax.scan(consume, cache, past)
        goes_on_from_slots = isinstance(self.dynamics, ObjectCentric)
        return RolloutState(cache, features[:, -1], slots[:, -1] if goes_on_from_slots else None)

    @jax.jit
    def imagine(self, state: RolloutState, actions: Float[Array, "b k a"]) -> RolloutState:
        """One step with nothing decoded; `step` without the picture.

        Raises:
          ValueError: the actions are not of the model's shape.
        """
        self._check_actions(actions, (self.num_factors, self.action_dim))
        if state.slots is None:
            cache, out = self._dynamics(state.cache, state.features, actions, method="step")
            slots, features = None, out.next_features
        else:
            cache, slots, features = self._dynamics(state.cache, state.slots, actions, method="imagine_slots")
        if self.quantize_predictions:
            features = self._tokenizer(features, method="quantize")
        return RolloutState(cache, features.astype(state.features.dtype), slots)

    @jax.jit
    def step(self, state: RolloutState, actions: Float[Array, "b k a"]) -> tuple[RolloutState, Float[Array, "b H W 3"]]:
        """The next state and the next frame, in time that does not grow with the number of frames seen.

        Args:
          state: from `start` or `step`.
          actions: one latent action for every factor.

        Returns:
          The new state, and its frame in [0, 1].

        Raises:
          ValueError: the actions are not of the model's shape.
        """
        state = self.imagine(state, actions)
        return state, self.decode(state.features)

    @jax.jit
    def rollout(
        self,
        context: UInt8[Array, "b t H W 3"],
        actions: Float[Array, "b steps k a"],
        true_actions: Shaped[Array, "b t *n"] | None = None,
    ) -> Float[Array, "b steps H W 3"]:
        """Imagined frames that follow the context (PAPER: protocol): `step`, scanned in feature space, and of
        object-centric models in that of their slots.

        Args:
          context: true frames, 0..255.
          actions: latent actions of the steps; the first leads on from the last context frame.
          true_actions: of the context, as in `observe`.

        Returns:
          Frames in [0, 1], the first one step after the context.

        Raises:
          ValueError: frames or actions are not of the model's shape.
        """
        self._check_actions(actions, (actions.shape[1] if actions.ndim == 4 else -1, self.num_factors, self.action_dim))

        def scanned(state: RolloutState, action: Array) -> tuple[RolloutState, Array]:
            state = self.imagine(state, action)
            return state, state.features

        _, features = jax.lax.scan(scanned, self.start(context, true_actions), jnp.moveaxis(actions, 1, 0))
        return self.decode(jnp.moveaxis(features, 0, 1))

    def sample_actions(self, key: PRNGKeyArray, batch: int, steps: int) -> Float[Array, "b steps k a"]:
        """Latent actions drawn from the model's prior, N(0, I) for FLAM."""
        return self._dynamics(key, (batch, steps), method="sample_actions")

    @property
    def num_factors(self) -> int:
        """k; 1 for a monolithic model."""
        return self.dynamics.num_factors  # type: ignore  # of every model of the house

    @property
    def action_dim(self) -> int:
        """a, the size of one factor's latent action."""
        return self.dynamics.action_dim  # type: ignore

    # Inside.

    def _tokenizer(self, *args: Any, method: str) -> Any:
        return self.tokenizer.apply({"params": self.tokenizer_params}, *args, method=method)

    def _dynamics(self, *args: Any, method: str) -> Any:
        return self.dynamics.apply({"params": self.dynamics_params}, *args, method=method)

    def _actions(self, slots: Array, true_actions: Array | None) -> tuple[Array, Array]:
        """Means of the latent actions between the slots of consecutive frames, and what they say in nats."""
        if isinstance(self.dynamics, ActionConditioned):
            actions = self.dynamics.joint_token(true_actions)
            return actions, self.dynamics.action_kl(actions)
        inferred = self._dynamics(slots, method="infer_actions")
        return inferred.mean, inferred.kl()

    def _check_frames(self, frames: Array) -> None:
        height, width = self.frame_size
        if frames.ndim != 5 or frames.shape[2:] != (height, width, 3):
            raise ValueError(f"frames: expected [b t {height} {width} 3] as in training, got {list(frames.shape)}")
        if frames.dtype != jnp.uint8:
            raise ValueError(f"frames: expected uint8 values 0..255, got {frames.dtype}")

    def _check_actions(self, actions: Array, shape: tuple[int, ...]) -> None:
        if actions.shape[1:] != shape:
            names = "b k a" if len(shape) == 2 else "b steps k a"
            expected = f"[{names}] with k = {self.num_factors} and a = {self.action_dim}"
            raise ValueError(f"actions: expected {expected}, got {list(actions.shape)}")


__all__ = ["Observation", "RolloutState", "WorldModel"]
