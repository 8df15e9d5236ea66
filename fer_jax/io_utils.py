"""Files that are there whole or not at all, and what is said of those that cannot be."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def named_by(flag: str, path: os.PathLike | str) -> Iterator[None]:
    """Where `path`, which a flag has named, cannot be written within the context, says so.

    Raises:
      OSError: with a message for who gave the flag; the system's is its cause.
    """
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError)  # of a folder that is to be made
        reason = f"{error.filename} is no folder" if in_the_way else error.strerror or str(error)
        raise OSError(f"cannot write to {path} ({reason}); give another {flag}") from error


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
