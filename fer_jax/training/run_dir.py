"""A run's directory: whose it is, and whether the run is finished."""

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
from fer_jax.weights_file import CHECKPOINTS

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
PRETRAINED_FILE = "pretrained.json"
# What may change between two starts of one run: of its numbers only roundings, and the units that dropout
# draws under another `parallel`, depend on them. Hashes say what files hold, wherever they lie.
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


# What a run had that was started before the field was.
_BEFORE_THE_FIELD = {"distill.views": "augmented"}


@contextlib.contextmanager
def exclusive(workdir: pathlib.Path) -> Iterator[None]:
    """Makes the directory and keeps it, within the context, from any other run that would write there.

    With several processes the first one holds it for all. The lock (flock) ends with the process,
    however that ends.

    Raises:
      OSError: it cannot be made.
      ValueError: another process trains in it now.
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
        logging.warning("%s cannot be locked (%s): start no second run in it", workdir, error)
    try:
        yield
    finally:
        os.close(descriptor)


def claim(workdir: pathlib.Path, wanted: dict[str, Any]) -> None:
    """Makes the directory this run's, or checks that it already is.

    Args:
      workdir: the directory, see `exclusive`.
      wanted: what the run is: its configuration as JSON types, see `flatten`, and the hashes of its data.

    Raises:
      ValueError: the directory belongs to a run with another configuration or other data (the fields are
        named), or holds something else. A run that has no checkpoint yet gives way: its first start may
        have failed on the very field that has been corrected.
      OSError: it cannot be written.
    """
    path = workdir / CONFIG_FILE
    if other := another(workdir, wanted):
        raise ValueError(
            f"{other}\nUse another --workdir; to start from its weights set --config.init_from={workdir}"
        )
    if path.is_file() and not _differing(_read_json(path), wanted):
        return
    if jax.process_index():
        return  # the first process claims for all, perhaps at this moment
    cut_off = partial(path)  # what a claim that was killed leaves
    if not path.is_file() and any(entry != cut_off for entry in workdir.glob("*")):
        raise ValueError(
            f"{workdir} is not empty and no run of fer_jax (it has no {CONFIG_FILE}): use another --workdir"
        )
    with named_by("--workdir", workdir):
        _write_json(path, wanted)


def another(workdir: pathlib.Path, wanted: dict[str, Any]) -> str | None:
    """What says that a directory holds work of another run, naming each field; None where it does not.

    Args:
      workdir: the directory.
      wanted: as `claim`.

    Raises:
      ValueError: the directory's configuration is damaged.
    """
    path = workdir / CONFIG_FILE
    saved = any(entry.name.isdecimal() for entry in (workdir / CHECKPOINTS).glob("*"))
    if not path.is_file() or not (saved or (workdir / SUMMARY_FILE).is_file()):
        return None
    found = _read_json(path)
    differing = _differing(found, wanted)
    lines = [f"  {k}: {found.get(k)!r} there, {wanted.get(k)!r} here" for k in differing]
    if "teachers" in differing:
        names = [one.get("distill.teachers") for one in (found, wanted)]
        lines.append(f"  (config.distill.teachers: {names[0]} there, {names[1]} here, by their weights)")
    return "\n".join([f"{workdir} belongs to a run with another configuration:", *lines]) if lines else None


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Fields that say that two configurations are not of one run."""
    keys = (found.keys() | wanted.keys()) - NEUTRAL_FIELDS
    found, wanted = (_BEFORE_THE_FIELD | one for one in (found, wanted))
    return [k for k in sorted(keys) if found.get(k) != wanted.get(k)]


def finished_summary(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a finished run, None while it is not."""
    path = workdir / SUMMARY_FILE
    return _read_json(path) if path.is_file() else None


def finish(workdir: pathlib.Path, summary: dict[str, Any]) -> None:
    """Marks the run as finished."""
    _write_json(workdir / SUMMARY_FILE, summary)


def keep_pretrained(workdir: pathlib.Path, facts: dict[str, Any]) -> None:
    """Notes what the weights are that the run starts from."""
    _write_json(workdir / PRETRAINED_FILE, facts)


def kept_pretrained(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What `keep_pretrained` noted, None where nothing is."""
    path = workdir / PRETRAINED_FILE
    return _read_json(path) if path.is_file() else None


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
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
            f"{path} is damaged ({error}): restore it, or move the work directory away to start anew"
        ) from None


def _write_json(path: pathlib.Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
