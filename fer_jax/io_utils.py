"""Atomic writes, and errors about files that cannot be written."""

import contextlib
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

STATE_VARIABLE = "FER_JAX_STATE"


def state_dir() -> pathlib.Path:
    """Returns the state folder: $FER_JAX_STATE, else fer_jax in $XDG_STATE_HOME or ~/.local/state.

    Raises:
      OSError: neither variable is set, and there is no home folder.
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
    """Re-raises an OSError within the context as one about `path`, the value of a flag.

    Raises:
      OSError: the message names the path, the reason, and the flag.
    """
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError)  # instead of a folder
        reason = f"{error.filename} is not a folder" if in_the_way else error.strerror or str(error)
        raise OSError(f"cannot write to {path} ({reason}); give another {flag}") from error


def partial(path: pathlib.Path) -> pathlib.Path:
    """Returns the temporary file of `write_atomically`, which a killed process leaves behind."""
    return path.with_name(path.name + ".partial")


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes or replaces a file; readers see either the old or the new content.

    Raises:
      OSError: the file cannot be written; the old content remains.
    """
    partial(path).write_bytes(content)
    move_into_place(partial(path), path)


def write_json(
    path: pathlib.Path, value: Any, *, indent: int = 2, sort_keys: bool = True, **how: Any
) -> None:
    """Writes a value as JSON (`json.dumps`), as `write_atomically`."""
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, **how)
    write_atomically(path, f"{text}\n".encode())


class _Fields(dict[str, Any]):
    """An object in a JSON file; to read a field that it lacks raises a ValueError that names the file."""

    def __init__(self, fields: Iterable[tuple[str, Any]], path: pathlib.Path, advice: str):
        super().__init__(fields)
        self._place = path, advice

    def __missing__(self, name: str) -> Any:
        path, advice = self._place
        raise ValueError(f"{path} is damaged (it lacks the field {name!r}): {advice}")


def read_json(
    path: pathlib.Path, advice: str = "restore it, or run again the command that wrote it"
) -> dict[str, Any]:
    """Reads an object that `write_json` wrote.

    Args:
      path: the file.
      advice: what to do about a damaged file, for messages.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged, or, when that is read, lacks a field; the message names it.
    """
    try:
        found = _parse(path.read_text(encoding="utf-8"), path, advice)
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8, or nested too deeply
        raise ValueError(f"{path} is damaged ({error}): {advice}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (expected a JSON object): {advice}")
    return found


def read_json_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file with one per line, without damaged lines; none if it does not exist.

    Raises:
      OSError: the file cannot be read.
    """
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):  # cut off by a kill
            if isinstance(found := _parse(line, path, "remove the line"), dict):
                yield found


def write_json_lines(path: pathlib.Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes a file for `read_json_lines`, atomically."""
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def _parse(text: str, path: pathlib.Path, advice: str) -> Any:
    return json.loads(text, object_pairs_hook=functools.partial(_Fields, path=path, advice=advice))


def move_into_place(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a complete file or folder; after a power failure there is either the old or the new one.

    Flushes the content to disk before the rename, and the new name before returning.

    Raises:
      OSError: as `os.replace`, or the disk is full; the old one remains.
    """
    for path in [*source.rglob("*"), source] if source.is_dir() else [source]:
        _sync(path)
    os.replace(source, target)
    _sync(target.parent)


def _sync(path: pathlib.Path) -> None:
    """Flushes a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # which some network file systems refuse
            raise
    finally:
        os.close(descriptor)
