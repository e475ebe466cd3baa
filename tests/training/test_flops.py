"""Counting arithmetic: every number is known by hand."""

import jax
import jax.numpy as jnp
import pytest

from flam_jax.training.flops import count_flops

A, B = jnp.zeros((3, 5, 7)), jnp.zeros((3, 7, 2))
PRODUCT = 2 * 3 * 5 * 7 * 2


def flops(function, *arguments):
    return count_flops(jax.jit(function).trace(*arguments).jaxpr)


def test_products_and_what_stands_in_functions_of_functions() -> None:
    assert flops(lambda a, b: a @ b, A, B) == PRODUCT
    assert flops(lambda a, b: jax.jit(jax.checkpoint(lambda x: x @ b))(a) + 1.0, A, B) == PRODUCT
    assert flops(lambda a: a * a + jnp.tanh(a), A) == 0


def test_a_gradient_takes_three_products() -> None:
    assert flops(jax.grad(lambda a, b: jnp.square(a @ b).sum(), argnums=(0, 1)), A, B) == 3 * PRODUCT


def test_what_is_computed_again_for_the_gradient_counts_again() -> None:
    function = jax.checkpoint(lambda a, b: jnp.sin(a @ b).sum())
    assert flops(jax.grad(function, argnums=(0, 1)), A, B) == 4 * PRODUCT


def test_loops_count_as_often_as_they_run_and_conditions_as_their_longer_branch() -> None:
    def loop(a, b):
        return jax.lax.scan(lambda total, _: (total + (a @ b).sum(), None), 0.0, None, length=6)[0]

    assert flops(loop, A, B) == 6 * PRODUCT
    branch = lambda a, b: jax.lax.cond(a.sum() > 0, lambda: (a @ b).sum(), lambda: 0.0)  # noqa: E731
    assert flops(branch, A, B) == PRODUCT


@pytest.mark.parametrize(("strides", "groups"), [((1, 1), 1), ((2, 2), 1), ((1, 1), 4)])
def test_convolutions(strides: tuple[int, int], groups: int) -> None:
    x, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4 // groups, 12))
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(  # noqa: E731
        x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
    places = (8 // strides[0]) * (8 // strides[1])
    assert flops(convolve, x, kernel) == 2 * 2 * places * 12 * 9 * 4 // groups
