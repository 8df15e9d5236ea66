"""Records the commit, JAX version, and devices behind a run's results."""

import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

import fer_jax
from fer_jax.io_utils import read_json_lines, write_json_lines

STARTS_FILE = "starts.jsonl"


def current() -> dict[str, Any]:
    """Returns the package "version", "commit", "jax", "devices" (their number), and "device".

    The commit ends in "-dirty" if tracked files have uncommitted changes; it is None if the package is not in
    its own Git checkout.
    """
    import jax  # not needed to read records

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
        return None  # installed, possibly within another project's checkout
    # Without tags, which other clones may lack.
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def record_start(workdir: pathlib.Path, step: int) -> None:
    """Adds `current` and the first step to starts.jsonl of the run, without truncated lines."""
    path = workdir / STARTS_FILE
    write_json_lines(path, [*read_json_lines(path), {"step": step, **current()}])


def read_starts(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the records of `record_start`, in order; [] without a file.

    Skips starts whose steps were trained again by later starts, and truncated lines.
    """
    found: list[dict[str, Any]] = []
    for start in read_json_lines(workdir / STARTS_FILE):
        found = [one for one in found if one["step"] < start["step"]] + [start]
    return found


def commits(found: Iterable[dict[str, Any]]) -> str | None:
    """Lists the commits in records of `current`, as in "1a2b3c4 and 5d6e7f8"; None if unknown."""
    unique = dict.fromkeys(one["commit"] for one in found)
    return " and ".join(commit or "unknown" for commit in unique) if any(unique) else None


def describe(found: Iterable[dict[str, Any]]) -> str:
    """Summarizes records of `current`, as in "commit 1a2b3c4, 2 x cpu, jax 0.10.2"."""
    found = list(found)
    if not found:
        return "commit and devices unknown"
    many = len({one["commit"] for one in found}) > 1
    machines = dict.fromkeys(f"{one['devices']} x {one['device']}, jax {one['jax']}" for one in found)
    return f"{'commits' if many else 'commit'} {commits(found) or 'unknown'}, {' and '.join(machines)}"
