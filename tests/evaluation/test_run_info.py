"""Tests the record of a run's source code and devices."""

import pathlib
import shutil
import subprocess

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.evaluation import run_info


def start(step, **changes):
    return {"step": step, "version": "1", "commit": "a", "jax": "2", "devices": 1, "device": "cpu"} | changes


def test_records_what_runs_here():
    found = run_info.current()
    assert (found["devices"], found["device"]) == (jax.device_count(), jax.devices()[0].device_kind)
    assert found["jax"] == jax.__version__


def test_a_commit_is_told_from_one_with_changes(tmp_path, monkeypatch):
    """Uses a checkout with one tagged commit; an installed package inside it has no commit."""
    if not shutil.which("git"):
        pytest.skip("needs git: apt install git")
    source = tmp_path / "fer_jax" / "evaluation" / "run_info.py"
    source.parent.mkdir(parents=True)
    source.touch()
    monkeypatch.setattr(run_info, "__file__", str(source))

    def git(*arguments):
        own = ["-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
        command = ["git", *own, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("add", ".")
    git("commit", "--message=first")
    git("tag", "--annotate", "v1", "--message=one")
    commit = git("rev-parse", "--short", "HEAD")
    assert run_info.current()["commit"] == commit
    source.write_text("changed")
    assert run_info.current()["commit"] == f"{commit}-dirty"
    installed = tmp_path / "site-packages" / "fer_jax" / "evaluation" / "run_info.py"
    monkeypatch.setattr(run_info, "__file__", str(installed))
    assert run_info.current()["commit"] is None


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("run")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5)), st.integers(0, 10**6))
def test_a_start_replaces_those_from_the_same_or_a_later_step(workdir, steps, cut):
    """A run that is killed while writing, at any byte, loses only that line."""
    path = workdir / run_info.STARTS_FILE
    path.unlink(missing_ok=True)
    assert run_info.read_starts(workdir) == []
    with pytest.MonkeyPatch.context() as patch:
        for number, step in enumerate(steps):
            patch.setattr(run_info, "current", lambda number=number: {"number": number})
            run_info.record_start(workdir, step)
    lines = path.read_text().splitlines(keepends=True) if steps else []
    text = "".join(lines)[: cut % (len("".join(lines)) + 1)]
    path.write_text(text)
    whole = sum(len("".join(lines[: i + 1]).rstrip()) <= len(text) for i in range(len(lines)))
    expected = [i for i in range(whole) if all(steps[i] < later for later in steps[i + 1 : whole])]
    found = [{"step": steps[i], "number": i} for i in expected]
    assert run_info.read_starts(workdir) == found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_info, "current", lambda: {"number": -1})
        run_info.record_start(workdir, 6)
    assert run_info.read_starts(workdir) == [*found, {"step": 6, "number": -1}]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "commit and devices unknown"),
        ([start(0), start(5)], "commit a, 1 x cpu, jax 2"),
        (
            [start(0), start(5, commit=None, jax=3)],
            "commits a and unknown, 1 x cpu, jax 2 and 1 x cpu, jax 3",
        ),
        ([start(0, commit=None)], "commit unknown, 1 x cpu, jax 2"),
    ],
)
def test_names_each_commit_and_machine_once(found, words):
    assert run_info.describe(found) == words
