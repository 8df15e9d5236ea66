"""Explains errors that the user can fix."""

import errno
import os


class ExplainedError(RuntimeError):
    """An error whose message tells the user what to do."""


def explain(error: Exception, folder: str | os.PathLike) -> str | None:
    """Returns a one-line explanation of an error that the user can fix, None for a bug."""
    text = str(error)  # Orbax, TensorStore, and TensorFlow raise their own types for a full disk
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        return f"the disk of {folder} is full: free space and run the same command to resume"
    if "RESOURCE_EXHAUSTED: Out of memory" in text or isinstance(error, MemoryError):
        return f"out of memory: lower the batch size or the input size ({text.splitlines()[0][:120]})"
    return text if isinstance(error, ExplainedError | OSError | ValueError) else None
