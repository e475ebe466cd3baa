"""Small models of all kinds, with random values in every parameter: initial values hide mistakes, because zero biases
and identity norms make many wrong functions right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flam_jax.baselines.ablations import coupled_flam, recurrent_flam
from flam_jax.baselines.monolithic import monolithic
from flam_jax.baselines.object_centric import object_centric
from flam_jax.dynamics.flam import flam

# b, t, h, w, c, k, blocks
SIZES = [(1, 2, 2, 3, 2, 2, 1), (2, 6, 4, 2, 3, 5, 2)]
# Nothing of this project's own in the model.
PAPER = dict(
    positions="features",
    cosine_attention=False,
    implicit_gradient=False,
    aggregator="cross_attention",
    inverse_frequency_power=0.0,
    inverse_temperature=1.0,
)

# Models by name, for what must hold of all of them; frames are not square.
GRID, CHANNELS, ACTORS, CHOICES = (3, 2), 3, 2, 3
_SIZE = dict(model_dim=8, num_blocks=1, num_heads=2, history=3)
_SLOTS = _SIZE | dict(num_factors=3, action_dim=2, num_iterations=2, inverse_frequency_power=1.0)
_FRAME = _SIZE | dict(grid=GRID, feature_dim=CHANNELS)
_BUILDERS = {
    "flam": (flam, _SLOTS),
    "flam_local": (flam, _SLOTS | dict(local_context=True, aggregator="local")),
    "flam_keys": (flam, _SLOTS | dict(positions="keys")),
    "flam_rendered": (flam, _SLOTS | dict(local_context=True, aggregator="local", reconstruction_weight=0.3)),
    "paper": (flam, _SLOTS | PAPER),
    "recurrent": (recurrent_flam, _SLOTS),
    "coupled": (coupled_flam, _SLOTS),
    "adaworld": (monolithic, _FRAME | dict(action_dim=3)),
    "genie": (monolithic, _FRAME | dict(action_dim=3, num_codes=8)),
    "action_conditioned": (monolithic, _FRAME | dict(actors_and_choices=(ACTORS, CHOICES))),
    "playslot": (object_centric, _FRAME | _SLOTS | dict(slot_training_share=0.5, local_context=True)),
    "slotformer": (object_centric, _FRAME | _SLOTS | dict(slot_training_share=0.5, action_dim=0)),
}
NAMES = tuple(_BUILDERS)
FRAMES = 5


@functools.cache
def make(name, **changes):
    """Model, random variables, random features, and true actions where the model needs them (else None)."""
    build, fields = _BUILDERS[name]
    model = build(**(fields | changes))
    features = random_features((2, FRAMES, *GRID, CHANNELS))
    given = model.spec.action_source == "given"
    actions = np.random.default_rng(2).integers(0, CHOICES, (2, FRAMES, ACTORS))
    return model, random_parameters(model, features), features, jnp.asarray(actions) if given else None


@functools.cache
def make_model(size, build=flam, **changes):
    """Model, random variables and random features of one size."""
    b, t, h, w, c, k, blocks = size
    fields = dict(num_factors=k, action_dim=2, model_dim=8, num_blocks=blocks, num_heads=2, history=3)
    model = build(**(fields | dict(inverse_frequency_power=1.0) | changes))
    features = random_features((b, t, h, w, c))
    return model, random_parameters(model, features), features


def random_features(shape):
    """Uniform numbers from -1 to 1."""
    return jnp.asarray(np.random.default_rng(1).uniform(-1.0, 1.0, shape), jnp.float32)


def random_parameters(model, features):
    """Variables of a model with random values in every parameter."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, {"params": jax.random.key(0), "action": jax.random.key(0)}, features)

    def fill(path, leaf):
        values = rng.normal(size=leaf.shape) * (0.3 if leaf.ndim > 1 else 0.1)
        return jnp.asarray(values + ("scale" in jax.tree_util.keystr(path)), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def without_gradient(gradients):
    """Names of the parameters that a gradient does not reach.

    Only differences of the attention logits over the keys count, so a bias of the keys changes nothing anywhere.
    """
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    dead = {jax.tree_util.keystr(path) for path, leaf in leaves if float(np.abs(np.asarray(leaf)).max()) < 1e-7}
    return {name for name in dead if not name.endswith("['key']['bias']")}


def max_difference(a, b):
    """Largest absolute difference between two trees."""
    pairs = zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (a, b)), strict=True)
    return max(float(np.max(np.abs(x - y), initial=0.0)) for x, y in pairs)


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(model, variables, *arguments, method=None, rngs=None):
    """`model.apply`, compiled: run operation by operation it takes minutes."""
    return model.apply(variables, *arguments, method=method, rngs=rngs)
