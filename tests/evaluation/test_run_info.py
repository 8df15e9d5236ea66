"""What a run notes of the source and the devices that its figures are of."""

import pathlib
import shutil
import subprocess

import jax
import pytest

from fer_jax.evaluation import run_info

ROOT = pathlib.Path(run_info.__file__).resolve().parents[2]


def start(step, **changes):
    return {"step": step, "version": "1", "commit": "a", "jax": "2", "devices": 1, "device": "cpu"} | changes


def test_says_what_runs_here():
    found = run_info.current()
    assert (found["devices"], found["device"]) == (jax.device_count(), jax.devices()[0].device_kind)
    assert found["jax"] == jax.__version__


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one tagged commit that the package seems to lie in; git(...) runs there."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    source = tmp_path / "fer_jax" / "evaluation" / "run_info.py"
    source.parent.mkdir(parents=True)
    source.touch()
    monkeypatch.setattr(run_info, "__file__", str(source))
    own = ["-c", "user.name=a", "-c", "user.email=a@b.example"]

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), *own, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("add", ".")
    git("commit", "--message=first")
    git("tag", "--annotate", "v1", "--message=one")
    return git


def test_a_commit_is_told_from_one_with_changes(checkout):
    commit = checkout("rev-parse", "--short", "HEAD")
    assert run_info.current()["commit"] == commit
    pathlib.Path(run_info.__file__).write_text("changed")
    assert run_info.current()["commit"] == f"{commit}-dirty"


def test_an_installed_package_has_no_commit(checkout, tmp_path, monkeypatch):
    """Within another project's checkout, too: that one's commit says nothing of it."""
    site = tmp_path / "site-packages" / "fer_jax" / "evaluation"
    site.mkdir(parents=True)
    monkeypatch.setattr(run_info, "__file__", str(site / "run_info.py"))
    assert run_info.current()["commit"] is None


def test_a_start_undoes_those_that_it_did_not_go_on_from(tmp_path, monkeypatch):
    assert run_info.read_starts(tmp_path) == []
    for step, commit in ((0, "a"), (0, "b"), (20, "c"), (30, "d"), (20, "e")):
        monkeypatch.setattr(run_info, "current", lambda commit=commit: {"commit": commit})
        run_info.record_start(tmp_path, step)
    with open(tmp_path / run_info.STARTS_FILE, "a") as file:
        file.write('{"step": 40, "comm')  # killed while it wrote
    assert run_info.read_starts(tmp_path) == [{"step": 0, "commit": "b"}, {"step": 20, "commit": "e"}]


@pytest.mark.parametrize(
    "found, words",
    [
        ([], "commit and devices unknown"),
        ([start(0), start(5)], "commit a, 1 x cpu, jax 2"),
        (
            [start(0, commit=None), start(5, devices=8)],
            "commits unknown and a, 1 x cpu, jax 2 and 8 x cpu, jax 2",
        ),
    ],
)
def test_names_each_commit_and_machine_once(found, words):
    assert run_info.describe(found) == words
