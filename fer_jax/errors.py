"""What went wrong, in a line that says what to do."""

import errno
import os


class ExplainedError(RuntimeError):
    """An error whose message tells the user what to do."""


def explain(error: Exception, folder: str | os.PathLike) -> str | None:
    """The line about an error that a user can do something about, None about one of the program's own.

    Args:
      error: as it came; Orbax, TensorStore and TensorFlow have kinds of their own for a full disk.
      folder: that was being written to.
    """
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        return f"the disk of {folder} is full: free space and give the same command again; it goes on"
    if "RESOURCE_EXHAUSTED: Out of memory" in text or isinstance(error, MemoryError):
        return f"out of memory: lower the batch size or the input size ({text.splitlines()[0][:120]})"
    return text if isinstance(error, ExplainedError | OSError | ValueError) else None
