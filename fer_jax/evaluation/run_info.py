"""Of which source and on what a run's figures are."""

import json
import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

import fer_jax

STARTS_FILE = "starts.jsonl"


def current() -> dict[str, Any]:
    """What runs in this process: "version" of the package, "commit", "jax", "devices" (a number), "device".

    The commit ends in "-dirty" where tracked files have changes that are not in it; it is None where the
    package is not in a Git checkout of its own.
    """
    import jax  # what is noted is read without it

    devices = jax.devices()
    return {
        "version": fer_jax.__version__,
        "commit": _commit(),
        "jax": jax.__version__,
        "devices": len(devices),
        "device": devices[0].device_kind,
    }


def _commit() -> str | None:
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None  # installed, perhaps within another project's checkout
    # Without tags, so that it is a commit in any clone.
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def record_start(workdir: pathlib.Path, step: int) -> None:
    """Adds a line to the run's `starts.jsonl`: what it goes on with from `step`."""
    with open(workdir / STARTS_FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **current()}) + "\n")


def read_starts(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """What `record_start` noted, in its order; [] where nothing is.

    A start that a later one undid, which went on from no later step, is left out, and so is a line that was
    cut off.
    """
    path = workdir / STARTS_FILE
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            start = json.loads(line)
        except ValueError:
            continue
        found = [one for one in found if one["step"] < start["step"]] + [start]
    return found


def commits(found: Iterable[dict[str, Any]]) -> str | None:
    """Of several of `current`, each commit once: "1a2b3c4 and 5d6e7f8"; None where none is known."""
    found = list(found)
    if not any(one["commit"] for one in found):
        return None
    return " and ".join(dict.fromkeys(one["commit"] or "unknown" for one in found))


def describe(found: Iterable[dict[str, Any]]) -> str:
    """One line for several of `current`, each thing named once: "commit 1a2b3c4, 2 x cpu, jax 0.10.2"."""
    found = list(found)
    many = len({one["commit"] for one in found}) > 1
    machines = dict.fromkeys(f"{one['devices']} x {one['device']}, jax {one['jax']}" for one in found)
    if not found:
        return "commit and devices unknown"
    return f"{'commits' if many else 'commit'} {commits(found) or 'unknown'}, {' and '.join(machines)}"
