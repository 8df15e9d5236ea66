"""Networks of operations that every converter knows, for exports."""

import contextlib
import contextvars
from collections.abc import Iterator

_IS_ON = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Restricts what is traced within the context, in this thread, to standard operations.

    Every convolution is a `lax.conv_general_dilated` and every pooling over windows a `lax.reduce_window` on
    every platform, without custom calls and custom gradients. Numbers change only by rounding. A function
    that `jax.jit` has traced before stays as it was traced.
    """
    token = _IS_ON.set(True)
    try:
        yield
    finally:
        _IS_ON.reset(token)


def is_on() -> bool:
    """Returns whether this thread is within `portable`."""
    return _IS_ON.get()
