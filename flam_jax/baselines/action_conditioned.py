"""A world model that is given the true actions (PAPER: what was compared): what prediction is worth when nothing has to
be inferred."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from flam_jax.baselines.monolithic import Monolithic, as_slot, whole_frame
from flam_jax.dynamics.factorizer import Competition
from flam_jax.dynamics.flam import FlamOutput, check_frames


class ActionConditioned(Monolithic, kw_only=True):
    """The forward dynamics of the monolithic models; their action is one token of all actors' true actions.

    In place of a latent action stands `joint_token`, the actors' actions one-hot beside each other, so that all methods
    but `infer_actions` are those of a latent action model with k = 1.

    Attributes:
      num_actors: whose actions are known.
      num_choices: actions that each of them has; `action_dim` is num_actors * num_choices.
    """

    num_actors: int
    num_choices: int
    bottleneck: str = "none"

    def setup_inverse(self) -> None:
        """Nothing is inferred."""

    def joint_token(self, true_actions: Int[Array, "b t *n"] | None) -> Float[Array, "b t-1 1 a"]:
        """What `actions` are for this model.

        Args:
          true_actions: number of the action that each actor takes in each frame; the last leads out of the window. No
            axis n where there is one actor.

        Raises:
          ValueError: they are missing, or not of so many actors.
        """
        if true_actions is None:
            raise ValueError("this model infers no actions: expected true_actions, i[b t n]")
        actions = true_actions[..., None] if true_actions.ndim == 2 else true_actions
        if actions.shape[-1] != self.num_actors:
            raise ValueError(f"true_actions: expected {self.num_actors} actors, got {actions.shape[-1]}")
        hot = jax.nn.one_hot(actions[:, :-1], self.num_choices)
        return hot.reshape(*hot.shape[:2], 1, self.action_dim)

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        competition: Competition | None = None,
        actions: Float[Array, "b t-1 1 a"] | None = None,
    ) -> FlamOutput:
        """As `Flam`, with actions from `joint_token`; `init` does without.

        Raises:
          ValueError: fewer than two frames, or no actions.
        """
        del competition
        check_frames(features.shape[1])
        if actions is None:
            if not self.is_initializing():
                raise ValueError("this model infers no actions: expected those of joint_token")
            actions = jnp.zeros((features.shape[0], features.shape[1] - 1, 1, self.action_dim))
        slots = as_slot(features)
        next_slots = self.predict_slots(slots[:, :-1], actions)
        return FlamOutput(
            slots=slots,
            attention=whole_frame(features),
            action_mean=actions,
            action_log_var=jnp.full_like(actions, -jnp.inf),
            action_kl=self.action_kl(actions),
            actions=actions,
            next_slots=next_slots,
            next_features=self._as_features(next_slots),
        )

    def action_kl(self, actions: Float[Array, "b t 1 a"]) -> Float[Array, "b t 1"]:
        """KL from the uniform prior over all actors' actions, in nats, whatever the actions."""
        return jnp.full(actions.shape[:-1], self.num_actors * jnp.log(float(self.num_choices)))

    def infer_actions(self, slots: Float[Array, "b t 1 d"]):
        """Raises ValueError: this model is told what happens."""
        raise ValueError("this model infers no actions; joint_token makes them of the true ones")

    def sample_actions(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape 1 a"]:
        """Actions that every actor draws by itself, all alike."""
        drawn = jax.random.randint(key, (*shape, self.num_actors), 0, self.num_choices)
        return jax.nn.one_hot(drawn, self.num_choices).reshape(*shape, 1, self.action_dim)
