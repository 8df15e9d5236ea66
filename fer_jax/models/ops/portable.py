"""Networks in operations that every converter knows, for exports."""

import contextlib
import contextvars
from collections.abc import Iterator

_IS_ON = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Makes what is traced within the context, in this thread, of the standard operations alone.

    Every convolution is a `lax.conv_general_dilated` and every pooling over windows a `lax.reduce_window`,
    whatever the backend: no custom call and none of the forms in which they are faster on the CPU. The
    numbers are the same up to rounding. A function that `jax.jit` has traced before stays as it was traced.
    """
    token = _IS_ON.set(True)
    try:
        yield
    finally:
        _IS_ON.reset(token)


def is_on() -> bool:
    """Whether this thread is within `portable`."""
    return _IS_ON.get()
