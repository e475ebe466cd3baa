"""Small FLAM models of several sizes, with random values in every parameter: initial values hide mistakes, because zero
biases and identity norms make many wrong functions right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flam_jax.dynamics.flam import Flam

# b, t, h, w, c, k, blocks
SIZES = [(1, 2, 2, 3, 2, 2, 1), (2, 6, 4, 2, 3, 5, 2)]


@functools.cache
def make_model(size, model_type=Flam, **changes):
    """Model, random variables and random features of one size."""
    b, t, h, w, c, k, blocks = size
    fields = dict(num_factors=k, action_dim=2, model_dim=8, num_blocks=blocks, num_heads=2, history=3, rarity=1.0)
    model = model_type(**(fields | changes))
    features = jnp.asarray(np.random.default_rng(1).uniform(-1.0, 1.0, (b, t, h, w, c)), jnp.float32)
    return model, random_parameters(model, features), features


def random_parameters(model, features):
    """Variables of a model with random values in every parameter."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, {"params": jax.random.key(0), "action": jax.random.key(0)}, features)

    def fill(path, leaf):
        values = rng.normal(size=leaf.shape) * (0.3 if leaf.ndim > 1 else 0.1)
        return jnp.asarray(values + ("scale" in jax.tree_util.keystr(path)), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def max_difference(a, b):
    """Largest absolute difference between two trees."""
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(model, variables, *arguments, method=None, rngs=None):
    """`model.apply`, compiled: run operation by operation it takes minutes."""
    return model.apply(variables, *arguments, method=method, rngs=rngs)
