"""Names of the axes of activations, by which whoever trains a model may spread them over devices.

The modules say what the axes are and know of no device: `with_logical_constraint(slots, "batch", None, "factor")`.
Outside of `logical_axis_rules` that does nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeVar

import jax

# An image is a frame of an example: batch and time in one axis. None: not sharded.
Axis = Literal["batch", "image", "factor", "patch"] | None
AxisRules = Callable[[jax.Array, tuple[Axis, ...]], jax.Array]
Constrained = TypeVar("Constrained")

_rules: ContextVar[AxisRules | None] = ContextVar("rules", default=None)


def with_logical_constraint(x: Constrained, *axes: Axis) -> Constrained:
    """The same values, sharded by the names of the array's leading axes; further axes stay whole."""
    rules = _rules.get()
    return x if rules is None else rules(x, axes)  # type: ignore  # an array in, an array out


@contextmanager
def logical_axis_rules(rules: AxisRules) -> Iterator[None]:
    """Within it constraints are `rules(array, axes)`; it counts where a function is traced, not where it runs."""
    token = _rules.set(rules)
    try:
        yield
    finally:
        _rules.reset(token)
