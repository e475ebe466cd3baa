"""True actions in place of inferred ones (PAPER: what was compared): what prediction is worth when nothing has to be
inferred."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped


@flax.struct.dataclass
class KnownActions:
    """All probability on the token of the true actions."""

    mean: Float[Array, "*b a"]
    num_actors: int = flax.struct.field(pytree_node=False)
    num_choices: int = flax.struct.field(pytree_node=False)

    @property
    def log_var(self) -> Float[Array, "*b a"]:
        """Minus infinity: nothing is left open."""
        return jnp.full_like(self.mean, -jnp.inf)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b a"]:
        """The token."""
        del key
        return self.mean

    def kl(self) -> Float[Array, " *b"]:
        """KL from the uniform prior over all actors' actions, in nats, whatever the actions."""
        return jnp.full(self.mean.shape[:-1], self.num_actors * jnp.log(float(self.num_choices)))


class TrueActions(nn.Module):
    """The actions of a `Monolithic` model that are given: those of all actors, one-hot beside each other.

    Attributes:
      num_actors: whose actions are known.
      num_choices: actions that each of them has.
    """

    num_actors: int
    num_choices: int

    source = "given"
    added_loss_names = ()

    @property
    def action_dim(self) -> int:
        """Size of the token."""
        return self.num_actors * self.num_choices

    def __call__(
        self, features: Float[Array, "b t h w c"], true_actions: Shaped[Array, "b t *n"] | None
    ) -> KnownActions:
        """The token of the true actions, shape b t-1 1 a; `init` does without them.

        Args:
          features: of the frames; only their shape is read.
          true_actions: number of the action that each actor takes in each frame; the last leads out of the window. No
            axis n where there is one actor.

        Raises:
          ValueError: they are missing, or not of so many actors.
        """
        b, t = features.shape[:2]
        if true_actions is None:
            if not self.is_initializing():
                raise ValueError("this model infers no actions: expected true_actions, i[b t n]")
            token = jnp.zeros((b, t - 1, 1, self.action_dim))
        else:
            token = self.token(true_actions)
        return KnownActions(token, self.num_actors, self.num_choices)

    def token(self, true_actions: Int[Array, "b t *n"]) -> Float[Array, "b t-1 1 a"]:
        """See the call."""
        actions = true_actions[..., None] if true_actions.ndim == 2 else true_actions
        if actions.shape[-1] != self.num_actors:
            raise ValueError(f"true_actions: expected {self.num_actors} actors, got {actions.shape[-1]}")
        hot = jax.nn.one_hot(actions[:, :-1], self.num_choices)
        return hot.reshape(*hot.shape[:2], 1, self.action_dim)

    def added_losses(self, posterior: KnownActions, key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
        """None: nothing is learned here."""
        del posterior, key
        return {}

    def extras(self, posterior: KnownActions) -> dict[str, Array]:
        """None."""
        del posterior
        return {}

    def sample_prior(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape a"]:
        """Actions that every actor draws by itself, all alike."""
        drawn = jax.random.randint(key, (*shape, self.num_actors), 0, self.num_choices)
        return jax.nn.one_hot(drawn, self.num_choices).reshape(*shape, self.action_dim)
