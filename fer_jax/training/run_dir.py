"""A run's directory: which run it belongs to, and whether that is finished."""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from fer_jax.io_utils import named_by, partial, write_atomically
from fer_jax.pretrained.weights_file import CHECKPOINTS, CHECKSUMS, checksum_of_json

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
PRETRAINED_FILE = "pretrained.json"
# Fields that may change between two starts of one run. Its numbers depend on them only by rounding and, for
# `parallel`, in the units that dropout draws. Hashes tell files apart, wherever they are.
NEUTRAL_FIELDS = frozenset(
    {
        "data.dir",
        "data.drop_ids",
        "data.num_workers",
        "distill.teachers",
        "log_every",
        "parallel",
        "checkpoint.keep",
    }
)
# The value in effect for runs that were started before the field existed.
_BEFORE_THE_FIELD = {"distill.views": "augmented"}


@contextlib.contextmanager
def exclusive(workdir: pathlib.Path) -> Iterator[None]:
    """Creates the directory and locks it (flock) within the context against other runs.

    Of several processes the first one holds the lock for all.

    Raises:
      OSError: it cannot be created.
      ValueError: another process is training in it.
    """
    if jax.process_index():
        yield
        return
    with named_by("--workdir", workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(workdir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(
            f"another process is training in {workdir}: wait for it, stop it, or use another --workdir"
        ) from None
    except OSError as error:
        logging.warning("%s cannot be locked (%s): do not start a second run in it", workdir, error)
    try:
        yield
    finally:
        os.close(descriptor)


def check_identity(workdir: pathlib.Path, identity: dict[str, Any]) -> None:
    """Checks that the directory belongs to this run; a new one is marked as this run's.

    A run that has no checkpoint yet is replaced: its start may have failed on the very field that has been
    corrected.

    Args:
      workdir: the directory, see `exclusive`.
      identity: of the run, see `validate.Plan`.

    Raises:
      ValueError: the directory belongs to a run with another configuration or other data (the fields are
        named), or holds something else.
      OSError: it cannot be written.
    """
    path = workdir / CONFIG_FILE
    if difference := describe_difference(workdir, identity):
        raise ValueError(
            f"{difference}\nUse another --workdir; to start from its weights set --config.init_from={workdir}"
        )
    if path.is_file() and not _differing(_read_json(path), identity):
        return
    if jax.process_index():
        return  # the first process writes for all, perhaps at this moment
    unfinished = partial(path)  # left by a start that was killed
    if not path.is_file() and any(entry != unfinished for entry in workdir.glob("*")):
        raise ValueError(
            f"{workdir} is not empty and no run of fer_jax (it has no {CONFIG_FILE}): use another --workdir"
        )
    with named_by("--workdir", workdir):
        _write_json(path, identity)


def describe_difference(workdir: pathlib.Path, identity: dict[str, Any]) -> str | None:
    """Returns how the run in a directory differs, field by field; None where it has saved nothing else.

    Args:
      workdir: the directory.
      identity: as `check_identity`.

    Raises:
      ValueError: the directory's configuration is damaged.
    """
    path = workdir / CONFIG_FILE
    saved = any(entry.name.isdecimal() for entry in (workdir / CHECKPOINTS).glob("*"))
    if not path.is_file() or not (saved or (workdir / SUMMARY_FILE).is_file()):
        return None
    found = _read_json(path)
    differing = _differing(found, identity)
    lines = [f"  {k}: {found.get(k)!r} there, {identity.get(k)!r} here" for k in differing]
    if "teachers" in differing:
        names = [one.get("distill.teachers") for one in (found, identity)]
        lines.append(f"  (config.distill.teachers: {names[0]} there, {names[1]} here, by their weights)")
    return "\n".join([f"{workdir} belongs to a run with another configuration:", *lines]) if lines else None


def _differing(found: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """Returns the fields by which two identities are not of one run."""
    keys = (found.keys() | identity.keys()) - NEUTRAL_FIELDS
    found, identity = (_BEFORE_THE_FIELD | one for one in (found, identity))
    return [k for k in sorted(keys) if found.get(k) != identity.get(k)]


def finished_summary(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the summary of a finished run, None before that."""
    path = workdir / SUMMARY_FILE
    return _read_json(path) if path.is_file() else None


def finish(workdir: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes the summary, which marks the run as finished."""
    _write_json(workdir / SUMMARY_FILE, summary)


def keep_pretrained(workdir: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Stores the metadata of the weights that the run starts from, with a checksum."""
    _write_json(workdir / PRETRAINED_FILE, metadata | {CHECKSUMS: checksum_of_json(metadata)})


def kept_pretrained(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the metadata that `keep_pretrained` stored, None without any or where they are damaged."""
    path = workdir / PRETRAINED_FILE
    if not path.is_file():
        return None
    try:
        metadata = _read_json(path)
        found = checksum_of_json(metadata)
    except (ValueError, AttributeError):  # not JSON, or no object
        found = None
    if found is None or metadata.pop(CHECKSUMS, found) != found:  # older versions stored none
        logging.error("%s is damaged: the weights that the run started from are read again", path)
        return None
    return metadata


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one, keys joined by dots."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(
            f"{path} is damaged ({error}): restore it, or move the work directory away to start over"
        ) from None


def _write_json(path: pathlib.Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
