"""Names of the axes of activations, by which whoever trains a model may spread them over devices.

The modules say what the axes are and know of no device: `place(slots, "batch", None, "factor", None)`. Outside of
`placed_by` that does nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeVar

import jax

# An image is a frame of an example: batch and time in one axis. None: not to be cut.
Axis = Literal["batch", "image", "factor", "patch"] | None
Placer = Callable[[jax.Array, tuple[Axis, ...]], jax.Array]
Placed = TypeVar("Placed")

_placer: ContextVar[Placer | None] = ContextVar("placer", default=None)


def place(x: Placed, *axes: Axis) -> Placed:
    """The same values, spread over devices by the names of the array's leading axes; further axes stay whole."""
    placer = _placer.get()
    return x if placer is None else placer(x, axes)  # type: ignore  # an array in, an array out


@contextmanager
def placed_by(placer: Placer) -> Iterator[None]:
    """Within it `place` asks `placer(array, axes)`; it counts where a function is traced, not where it runs."""
    token = _placer.set(placer)
    try:
        yield
    finally:
        _placer.reset(token)
