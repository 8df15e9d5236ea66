"""Restricts networks to operations that every converter supports, for exports."""

import contextlib
import contextvars
from collections.abc import Iterator

_IS_ON = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Restricts tracing within the context, in this thread, to standard operations.

    On every platform, convolutions are `lax.conv_general_dilated` and window pooling is `lax.reduce_window`,
    without custom calls or custom gradients. Results change only by rounding. Functions that `jax.jit` has
    already traced do not change.
    """
    token = _IS_ON.set(True)
    try:
        yield
    finally:
        _IS_ON.reset(token)


def is_on() -> bool:
    """Returns whether this thread is within `portable`."""
    return _IS_ON.get()
