"""Counts the arithmetic of a traced function: as it is written, before a compiler optimizes it."""

import math
from collections.abc import Iterator
from typing import Any


def count_flops(jaxpr: Any) -> int:
    """Floating-point operations of all matrix products and convolutions, two for a multiplication with addition.

    Compilers count the body of a loop once; here it counts as often as the loop runs. The branch of a condition
    that does most counts, and a loop of unknown length once. Elementwise operations are left out: they cost bandwidth.

    Args:
      jaxpr: `jax.make_jaxpr(f)(...)` or `jax.jit(f).trace(...).jaxpr`.
    """
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, result = equation.invars[0].aval, equation.outvars[0].aval
            total += 2 * result.size * math.prod(left.shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, result = equation.invars[1].aval, equation.outvars[0].aval
            features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * result.size * kernel.size // features
        else:
            inner = [count_flops(each) for each in _jaxprs(equation.params)]
            inside = max(inner, default=0) if name == "cond" else sum(inner)
            total += inside * (equation.params["length"] if name == "scan" else 1)
    return total


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The functions within an operation's parameters."""
    for value in params.values():
        yield from (each for each in (value if isinstance(value, tuple | list) else (value,)) if hasattr(each, "eqns"))
