"""What went wrong, in a line that says what to do."""

import errno
import os

from fer_jax.data.dataset.builder import DatasetError
from fer_jax.training.monitoring import NonFiniteLossError
from fer_jax.weights_file import DamagedCheckpointError

_EXPECTED = (DamagedCheckpointError, DatasetError, NonFiniteLossError, OSError, ValueError)


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
    return text if isinstance(error, _EXPECTED) else None
