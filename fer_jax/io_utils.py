"""Atomic writes, and errors about files that cannot be written."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

STATE_VARIABLE = "FER_JAX_STATE"


def state_dir() -> pathlib.Path:
    """Returns the folder of records: $FER_JAX_STATE, else fer_jax in $XDG_STATE_HOME or ~/.local/state.

    Raises:
      OSError: neither variable is set and there is no home folder.
    """
    if folder := os.environ.get(STATE_VARIABLE):
        return pathlib.Path(folder)
    try:
        base = os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise OSError(f"there is no home folder: set ${STATE_VARIABLE} to a writable folder") from error
    return pathlib.Path(base) / "fer_jax"


@contextlib.contextmanager
def named_by(flag: str, path: os.PathLike | str) -> Iterator[None]:
    """Re-raises an OSError within the context as one about `path`, which the user gave by a flag.

    Raises:
      OSError: names the path, the reason and the flag.
    """
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError)  # where a folder is to be made
        reason = f"{error.filename} is not a folder" if in_the_way else error.strerror or str(error)
        raise OSError(f"cannot write to {path} ({reason}); give another {flag}") from error


def partial(path: pathlib.Path) -> pathlib.Path:
    """Returns the file that `write_atomically` writes before it renames; a killed process leaves it."""
    return path.with_name(path.name + ".partial")


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes or replaces a file such that readers see either the old or the new content.

    Raises:
      OSError: it cannot be written; the old content stays.
    """
    partial(path).write_bytes(content)
    move_into_place(partial(path), path)


def move_into_place(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a complete file or folder; after a power cut, too, there is the old or the new one.

    Everything in it is on the disk before it is renamed, and the new name before this returns.

    Raises:
      OSError: as `os.replace`, or the disk is full; the old one stays.
    """
    for path in [*source.rglob("*"), source] if source.is_dir() else [source]:
        _sync(path)
    os.replace(source, target)
    _sync(target.parent)


def _sync(path: pathlib.Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems refuse it for folders
            raise
    finally:
        os.close(descriptor)
