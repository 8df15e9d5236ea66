"""Manages a run directory: which run it belongs to, and whether that is finished."""

import contextlib
import functools
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from flax import traverse_util

from fer_jax.io_utils import named_by, partial, read_json, write_json
from fer_jax.locks import lock
from fer_jax.pretrained.weights_file import CHECKPOINTS, CHECKSUMS, checksum_of_json

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
PRETRAINED_FILE = "pretrained.json"
# Fields that may change between starts of a run. Results depend on them only by rounding and, for `parallel`,
# by dropout masks. Files are compared by hashes, independent of their paths.
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
# Values for runs that were started before the field existed.
_BEFORE_THE_FIELD = {"distill.views": "augmented"}
_read = functools.partial(read_json, advice="restore it, or move the run directory to start over")


@contextlib.contextmanager
def exclusive(workdir: pathlib.Path) -> Iterator[None]:
    """Creates the directory and locks it (flock) within the context.

    With several processes, the first one holds the lock for all.

    Raises:
      OSError: the directory cannot be created.
      ValueError: another process is training in it.
    """
    if jax.process_index():
        yield
        return
    with named_by("--workdir", workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    busy = f"another process is training in {workdir}: wait for it, stop it, or use another --workdir"
    with lock(workdir, ValueError(busy)):
        yield


def check_identity(workdir: pathlib.Path, identity: dict[str, Any]) -> None:
    """Checks that a directory belongs to this run, or marks a new one.

    Replaces a run without a checkpoint, because its start may have failed on a field that has been corrected.

    Args:
      workdir: the directory, see `exclusive`.
      identity: identity of the run, see `validate.Plan`.

    Raises:
      ValueError: the directory belongs to a run with another config or other data (the message names the
        fields), or has other files.
      OSError: the directory is not writable.
    """
    path = workdir / CONFIG_FILE
    if difference := describe_difference(workdir, identity):
        raise ValueError(
            f"{difference}\nUse another --workdir; to start from its weights, set "
            f"--config.init_from={workdir}"
        )
    if path.is_file() and not _differing(_read(path), identity):
        return
    if jax.process_index():
        return  # the first process writes for all, possibly now
    unfinished = partial(path)  # left by an interrupted start
    if not path.is_file() and any(entry != unfinished for entry in workdir.glob("*")):
        raise ValueError(
            f"{workdir} is not empty, and not a run of fer_jax (it has no {CONFIG_FILE}): use another "
            "--workdir"
        )
    with named_by("--workdir", workdir):
        write_json(path, identity)


def describe_difference(workdir: pathlib.Path, identity: dict[str, Any]) -> str | None:
    """Describes how the run in a directory differs from an identity, field by field.

    Returns None if it does not differ, or has no checkpoint.

    Raises:
      ValueError: the config in the directory is damaged.
    """
    path = workdir / CONFIG_FILE
    saved = any(entry.name.isdecimal() for entry in (workdir / CHECKPOINTS).glob("*"))
    if not path.is_file() or not (saved or (workdir / SUMMARY_FILE).is_file()):
        return None
    found = _read(path)
    differing = _differing(found, identity)
    lines = [f"  {k}: {found.get(k)!r} there, {identity.get(k)!r} here" for k in differing]
    if "teachers" in differing:
        names = [one.get("distill.teachers") for one in (found, identity)]
        lines.append(f"  (config.distill.teachers: {names[0]} there, {names[1]} here, by their weights)")
    return "\n".join([f"{workdir} belongs to a run with another config:", *lines]) if lines else None


def _differing(found: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """Returns the fields in which two identities of runs differ."""
    keys = (found.keys() | identity.keys()) - NEUTRAL_FIELDS
    found, identity = (_BEFORE_THE_FIELD | one for one in (found, identity))
    return [k for k in sorted(keys) if found.get(k) != identity.get(k)]


def finished_summary(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the summary of a finished run, None if it is not finished."""
    path = workdir / SUMMARY_FILE
    return _read(path) if path.is_file() else None


def finish(workdir: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes the summary, which marks the run as finished."""
    write_json(workdir / SUMMARY_FILE, summary)


def keep_pretrained(workdir: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Stores the metadata of the initial weights, with a checksum."""
    write_json(workdir / PRETRAINED_FILE, metadata | {CHECKSUMS: checksum_of_json(metadata)})


def kept_pretrained(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the metadata from `keep_pretrained`, None if missing or damaged."""
    path = workdir / PRETRAINED_FILE
    if not path.is_file():
        return None
    try:
        metadata = _read(path)
        found = checksum_of_json(metadata)
    except ValueError:
        found = None
    if found is None or metadata.pop(CHECKSUMS, found) != found:  # older versions stored none
        logging.error("%s is damaged: reading the initial weights again", path)
        return None
    return metadata


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries as one, keys joined by dots; empty ones stay."""
    flat = traverse_util.flatten_dict(tree, keep_empty_nodes=True, sep=".")
    return {name: {} if value is traverse_util.empty_node else value for name, value in flat.items()}
