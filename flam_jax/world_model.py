"""A trained model as pure functions: encode, infer latent actions, imagine, roll out, decode.

`WorldModel` is a pytree whose leaves are the parameters, so it can be passed through `jax.jit`, sharded and averaged
like any other; the modules and the numbers of the configuration are static. Every method is a pure function, compiled
on its first call and free to be nested in other `jit`, `vmap` and `scan`. It knows nothing of data sets, and of its
dynamics model what `dynamics.interface.LatentActionModel` offers.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8

from data_pipelines.paths import expand_path
from flam_jax import build
from flam_jax.config import Config, from_json
from flam_jax.dynamics.interface import ActionPosterior, ModelSpec

# What a model is shown: frames, 0..255; or features of the user's network, where its `reads` says so.
Shown = UInt8[Array, "b t H W 3"] | Float[Array, "b t h w c"]

# The fields of the structs below carry no array types: jax builds them with placeholders inside its transformations.


@struct.dataclass
class RolloutState:
    """A frame and what a model remembers of those before it: a pytree of constant size.

    Attributes:
      cache: the dynamics model's memory.
      features: the frame's quantized features, `f32[b h w c]`.
      slots: its slots, `f32[b k d]`.
      masks: of the slots, `f32[b k h w]`; they sum to 1 over k.
    """

    cache: Any
    features: Any
    slots: Any
    masks: Any


@struct.dataclass
class Observation:
    """What the model sees in given frames, all of them at once (parallel over time).

    Attributes:
      features: quantized features `f32[b t h w c]`.
      slots: `f32[b t k d]`.
      attention: slot masks `f32[b t k h w]`, which sum to 1 over k.
      action_mean: means of the latent actions `f32[b t-1 k a]`.
      action_kl: what they carry, `f32[b t-1 k]` in nats.
    """

    features: Any
    slots: Any
    attention: Any
    action_mean: Any
    action_kl: Any


@struct.dataclass
class Trajectory:
    """The steps of a rollout, not decoded.

    Attributes:
      features: quantized features `f32[b steps h w c]`.
      slots: `f32[b steps k d]`.
      masks: `f32[b steps k h w]`.
      actions: that led to them, `f32[b steps k a]`.
    """

    features: Any
    slots: Any
    masks: Any
    actions: Any


# From a state and a key (None where none was given) to the latent actions f32[b k a] of the next step. A policy with
# parameters is best a `jax.tree_util.Partial`, which compiles once for all values of them.
Policy = Callable[[RolloutState, PRNGKeyArray | None], Float[Array, "b k a"]]


@struct.dataclass
class WorldModel:
    """A tokenizer and a dynamics model with their parameters."""

    tokenizer_params: Any
    dynamics_params: Any
    tokenizer: nn.Module = struct.field(pytree_node=False)
    dynamics: Any = struct.field(pytree_node=False)  # a linen module, a LatentActionModel
    frame_size: tuple[int, int] = struct.field(pytree_node=False)  # height, width in pixels

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
        )

    @classmethod
    def restore(cls, workdir: str | Path) -> "WorldModel":
        """Reads the newest checkpoints of both stages from a run's folder.

        Raises:
          FileNotFoundError: the folder holds no finished configuration or no checkpoint of a stage.
          flam_jax.ConfigError: its configuration is not of this version.
          flam_jax.checkpoints.CheckpointError: a checkpoint is damaged, or of another configuration than `config.json`.
        """
        from flam_jax import checkpoints  # brings orbax, which only a restored model needs

        workdir = Path(expand_path(str(workdir)))
        file = workdir / "config.json"
        if not file.is_file():
            raise FileNotFoundError(f"{workdir}: no config.json there; expected the --workdir of a trained run")
        config = from_json(file.read_text(encoding="utf-8"))
        checkpoints.check_config(workdir / "dynamics", config, "dynamics")  # the file may have been changed since
        tokenizer_params = checkpoints.restore_parameters(workdir / "tokenizer")
        dynamics_params = checkpoints.restore_parameters(workdir / "dynamics")
        return cls.from_parts(config, tokenizer_params, dynamics_params)

    # Frames and features.

    @jax.jit
    def encode(self, frames: Shown) -> Float[Array, "b t h w c"]:
        """Frames (0..255), or features of the user's network, to the features of which the dynamics are.

        Raises:
          ValueError: they are not of the configuration's size.
        """
        if self.reads == "features":
            self._check_features(frames)
            return self._tokenizer(frames, method="encode")
        self._check_frames(frames)
        return self._tokenizer(frames.astype(jnp.float32) / 255.0, method="encode")

    @jax.jit
    def decode(self, features: Float[Array, "*b h w c"]) -> Float[Array, "*b H W 3"]:
        """Quantized features to frames in [0, 1]."""
        return jnp.clip(self._tokenizer(features, method="decode"), 0.0, 1.0)

    @jax.jit
    def reconstruct(self, frames: Shown) -> Float[Array, "b t H W 3"]:
        """Encodes and decodes: the tokenizer's ceiling, no prediction can look better. Frames in [0, 1]."""
        return self.decode(self.encode(frames))

    # What the model sees in frames.

    @property
    def reads(self) -> Literal["frames", "features"]:
        """What the methods take that are shown something, by its name in the records."""
        return self.tokenizer.reads  # type: ignore  # a Tokenizer or PrecomputedFeatures

    @property
    def spec(self) -> ModelSpec:
        """Static facts of the dynamics model: number of factors, size and source of its actions."""
        return self.dynamics.spec

    @jax.jit
    def observe(self, frames: Shown, true_actions: Shaped[Array, "b t *n"] | None = None) -> Observation:
        """Features, slots, masks and the posterior of the latent actions of true frames.

        Args:
          frames: at least two, as all frames that a model is shown: 0..255, or features where it `reads` these.
          true_actions: numbers of the actions taken in these frames, for a model whose `spec.action_source` is `given`;
            others take no notice.

        Raises:
          ValueError: the frames are not of the configuration's size, or fewer than two; true actions are missing.
        """
        if frames.ndim == 5 and frames.shape[1] < 2:
            raise ValueError(f"a latent action stands between two frames; got frames of shape {frames.shape}")
        features = self.encode(frames)
        factors = self._dynamics(features, method="factorize")
        posterior: ActionPosterior = self._dynamics(factors.slots, true_actions, method="infer_actions")
        return Observation(
            features=features,
            slots=factors.slots,
            attention=factors.attention,
            action_mean=posterior.mean,
            action_kl=posterior.kl(),
        )

    @jax.jit
    def infer_actions(
        self, frames: Shown, true_actions: Shaped[Array, "b t *n"] | None = None
    ) -> Float[Array, "b t-1 k a"]:
        """Means of the latent actions between consecutive true frames (PAPER: the IDM); arguments as `observe`.

        Raises:
          ValueError: as `observe`.
        """
        return self.observe(frames, true_actions).action_mean

    @jax.jit
    def factor_masks(self, frames: Shown) -> Float[Array, "b t k h w"]:
        """Slot attention over the patches of every frame; sums to 1 over the factors k."""
        return self._dynamics(self.encode(frames), method="factorize").attention

    # Imagination.

    @jax.jit
    def start(self, context: Shown, true_actions: Shaped[Array, "b t *n"] | None = None) -> RolloutState:
        """The state after true frames, with the latent actions between them inferred.

        Args:
          context: one or more frames, 0..255; the last of them is the current one.
          true_actions: as in `observe`.

        Raises:
          ValueError: the frames are not of the configuration's size.
        """
        features = self.encode(context)
        cache = self._dynamics(features[:, 0], method="init_cache")
        state = self._observed(cache, features[:, 0], None)
        if features.shape[1] > 1:
            slots = self._dynamics(features, method="factorize").slots
            actions = self._dynamics(slots, true_actions, method="infer_actions").mean

            def consume(state: RolloutState, frame: Any) -> tuple[RolloutState, None]:
                action, next_features = frame
                cache, _, _ = self._predict(state, action)
                return self._observed(cache, next_features, None), None

            frames = (jnp.moveaxis(actions, 1, 0), jnp.moveaxis(features[:, 1:], 1, 0))  # time leads in the scan
            state, _ = jax.lax.scan(consume, state, frames)
        return state

    def imagine(
        self,
        state: RolloutState,
        actions: Float[Array, "b k a"] | Policy,
        key: PRNGKeyArray | None = None,
    ) -> RolloutState:
        """The next state, with nothing decoded, in time that does not grow with the number of frames seen.

        Args:
          state: from `start` or `imagine`.
          actions: one latent action for every factor, or a policy: a function from state and key to such.
          key: for the policy.

        Raises:
          ValueError: the actions are not of the model's shape.
        """
        return self._imagine(state, actions(state, key) if callable(actions) else actions)

    def step(
        self,
        state: RolloutState,
        actions: Float[Array, "b k a"] | Policy,
        key: PRNGKeyArray | None = None,
    ) -> tuple[RolloutState, Float[Array, "b H W 3"]]:
        """`imagine`, and the next state's frame in [0, 1]."""
        state = self.imagine(state, actions, key)
        return state, self.decode(state.features)

    @overload
    def rollout(
        self,
        context: Shown | RolloutState,
        actions: Float[Array, "b steps k a"] | Policy,
        *,
        steps: int | None = None,
        key: PRNGKeyArray | None = None,
        true_actions: Shaped[Array, "b t *n"] | None = None,
        decode: Literal[True] = True,
    ) -> Float[Array, "b steps H W 3"]: ...

    @overload
    def rollout(
        self,
        context: Shown | RolloutState,
        actions: Float[Array, "b steps k a"] | Policy,
        *,
        steps: int | None = None,
        key: PRNGKeyArray | None = None,
        true_actions: Shaped[Array, "b t *n"] | None = None,
        decode: Literal[False],
    ) -> Trajectory: ...

    def rollout(
        self,
        context: Any,
        actions: Any,
        *,
        steps: int | None = None,
        key: PRNGKeyArray | None = None,
        true_actions: Any = None,
        decode: bool = True,
    ) -> Any:
        """What follows the context (PAPER: protocol): `imagine`, scanned.

        Args:
          context: true frames, 0..255, or a state.
          actions: latent actions of the steps, the first leads on from the last context frame; or a policy.
          steps: how many, with a policy.
          key: for the policy, which gets one of its own in every step.
          true_actions: of the context, as in `observe`.
          decode: whether frames are returned, else a `Trajectory`.

        Returns:
          Frames in [0, 1], or what they would be decoded from; the first one step after the context.

        Raises:
          ValueError: frames or actions are not of the model's shape; a policy without a number of steps.
        """
        if callable(actions):
            if steps is None:
                raise ValueError("rollout with a policy: expected steps, the number of steps")
            actions = actions if isinstance(actions, Partial) else Partial(actions)
        else:
            count = actions.shape[1] if actions.ndim == 4 else -1
            self._check_actions(actions, (count, self.num_factors, self.action_dim))
            if steps not in (None, count):
                raise ValueError(f"steps: expected {count}, as many as there are actions, got {steps}")
            steps = count
        state = context if isinstance(context, RolloutState) else self.start(context, true_actions)
        return self._rollout(state, actions, key, steps, decode)

    def sample_actions(self, key: PRNGKeyArray, batch: int, steps: int) -> Float[Array, "b steps k a"]:
        """Latent actions drawn from the model's prior, N(0, I) for FLAM."""
        return self._dynamics(key, (batch, steps), method="sample_actions")

    @property
    def num_factors(self) -> int:
        """k; 1 for a monolithic model."""
        return self.spec.num_factors

    @property
    def action_dim(self) -> int:
        """a, the size of one factor's latent action."""
        return self.spec.action_dim

    # Inside.

    def _tokenizer(self, *args: Any, method: str) -> Any:
        return self.tokenizer.apply({"params": self.tokenizer_params}, *args, method=method)

    def _dynamics(self, *args: Any, method: str) -> Any:
        return self.dynamics.apply({"params": self.dynamics_params}, *args, method=method)

    def _observed(self, cache: Any, features: Array, predicted_slots: Array | None) -> RolloutState:
        cache, slots, masks = self._dynamics(cache, features, predicted_slots, method="observe_frame")
        return RolloutState(cache, features, slots, masks)

    def _predict(self, state: RolloutState, actions: Array) -> tuple[Any, Array, Array]:
        frame = (state.cache, state.features, state.slots, state.masks)
        return self._dynamics(*frame, actions, method="predict")

    @jax.jit
    def _imagine(self, state: RolloutState, actions: Array) -> RolloutState:
        self._check_actions(actions, (self.num_factors, self.action_dim))
        cache, next_slots, features = self._predict(state, actions)
        features = self._tokenizer(features, method="quantize")
        return self._observed(cache, features.astype(state.features.dtype), next_slots)

    @functools.partial(jax.jit, static_argnames=("steps", "decode"))
    def _rollout(self, state: RolloutState, actions: Any, key: Array | None, steps: int, decode: bool) -> Any:
        def scanned(state: RolloutState, given: Any) -> tuple[RolloutState, Any]:
            action, step_key = given
            action = actions(state, step_key) if callable(actions) else action
            state = self._imagine(state, action)
            return state, state.features if decode else (state.features, state.slots, state.masks, action)

        given = None if callable(actions) else jnp.moveaxis(actions, 1, 0)
        keys = None if key is None else jax.random.split(key, steps)
        _, found = jax.lax.scan(scanned, state, (given, keys), length=steps)
        found = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), found)
        return self.decode(found) if decode else Trajectory(*found)

    def _check_frames(self, frames: Array) -> None:
        height, width = self.frame_size
        if frames.ndim != 5 or frames.shape[2:] != (height, width, 3):
            raise ValueError(f"frames: expected [b t {height} {width} 3] as in training, got {list(frames.shape)}")
        if frames.dtype != jnp.uint8:
            raise ValueError(f"frames: expected uint8 values 0..255, got {frames.dtype}")

    def _check_features(self, features: Array) -> None:
        shape: tuple[int, ...] = self.tokenizer.shape  # type: ignore  # of PrecomputedFeatures
        if features.ndim != 5 or features.shape[2:] != shape:
            expected = " ".join(map(str, shape))
            raise ValueError(f"features: expected [b t {expected}] as in training, got {list(features.shape)}")
        if not jnp.issubdtype(features.dtype, jnp.floating):
            raise ValueError(f"features: expected floats, got {features.dtype}")

    def _check_actions(self, actions: Array, shape: tuple[int, ...]) -> None:
        if actions.shape[1:] != shape:
            names = "b k a" if len(shape) == 2 else "b steps k a"
            expected = f"[{names}] with k = {self.num_factors} and a = {self.action_dim}"
            raise ValueError(f"actions: expected {expected}, got {list(actions.shape)}")


__all__ = ["Observation", "Policy", "RolloutState", "Shown", "Trajectory", "WorldModel"]
