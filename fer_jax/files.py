"""Files that are there whole or not at all."""

import os
import pathlib


def partial(path: pathlib.Path) -> pathlib.Path:
    """Where `write_atomically` writes before it renames: what a process that is killed leaves."""
    return path.with_name(path.name + ".partial")


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes or replaces a file; whoever reads it at any moment sees the old content or the new.

    Raises:
      OSError: it cannot be written; what was there stays.
    """
    partial(path).write_bytes(content)
    os.replace(partial(path), path)
