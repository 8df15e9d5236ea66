"""Tests atomic writes: files are complete or absent, and have default permissions."""

import ast
import errno
import os
import pathlib
import pickle
import stat

import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax import io_utils


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_new_and_replaced(tmp_path, umask):
    path = tmp_path / "report.json"
    for content in (b"a longer one", "schön".encode()):
        io_utils.write_atomically(path, content)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["report.json"]


def test_what_was_there_stays_until_the_new_content_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    io_utils.write_atomically(path, b"old")
    seen = []

    def killed(source, target):
        seen.append((source.read_bytes(), target.read_bytes()))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        io_utils.write_atomically(path, b"new")
    assert seen == [(b"new", b"old")]
    assert path.read_bytes() == b"old" and io_utils.partial(path).read_bytes() == b"new"


@pytest.fixture
def log(monkeypatch):
    """Returns events in order: the inodes that are synced, and "renamed"."""
    found, sync, rename = [], os.fsync, os.replace

    def note_sync(descriptor):
        found.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def note_rename(source, target):
        found.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    return found


def test_content_is_on_the_disk_before_its_name_is(tmp_path, log):
    """Otherwise a power failure could leave an empty file under the name."""
    io_utils.write_atomically(tmp_path / "state.json", b"{}")
    assert log == [(tmp_path / "state.json").stat().st_ino, "renamed", tmp_path.stat().st_ino]


def test_all_of_a_folder_is_on_the_disk_before_its_name_is(tmp_path, log):
    (tmp_path / "new" / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (tmp_path / "new" / name).write_text(name)
    whole = {path.stat().st_ino for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]}
    io_utils.move_into_place(tmp_path / "new", tmp_path / "named")
    assert (set(log[:4]), log[4:]) == (whole, ["renamed", tmp_path.stat().st_ino])
    assert (tmp_path / "named" / "deep" / "b").read_text() == "deep/b"


@pytest.mark.parametrize("folder", [True, False])
def test_a_disk_that_cannot_sync_a_file_keeps_the_old_one(tmp_path, monkeypatch, folder):
    """A folder that cannot be synced, as on some network file systems, is not an error."""
    path, sync = tmp_path / "state.json", os.fsync
    io_utils.write_atomically(path, b"old")

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folder:
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if folder:
        io_utils.write_atomically(path, b"new")
    else:
        with pytest.raises(OSError, match="Input/output error"):
            io_utils.write_atomically(path, b"new")
    assert path.read_bytes() == (b"new" if folder else b"old")


@given(st.recursive(st.none() | st.text(), lambda parts: st.dictionaries(st.text(), parts), max_leaves=9))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_missing_field_at_any_depth_is_an_error_that_names_the_file(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("read") / "report.json"
    io_utils.write_json(path, {"tree": tree})
    found = io_utils.read_json(path, "do this")
    assert found == {"tree": tree} and pickle.loads(pickle.dumps(found)) == found
    parts = [found]
    for part in parts:
        parts += [one for one in part.values() if isinstance(one, dict)]
        assert part.get("absent") is None
        with pytest.raises(ValueError, match=f"^{path} is damaged .it lacks the field 'absent'.: do this$"):
            part["absent"]


def test_lines_that_a_kill_or_a_disk_damaged_are_left_out(tmp_path):
    path = tmp_path / "starts.jsonl"
    assert list(io_utils.read_json_lines(path)) == []
    path.write_bytes(b'{"step": 1}\n[]\n\xff\n' + b"[" * 100_000 + b'\n{"step": 2}\n{"step')
    first, second = io_utils.read_json_lines(path)
    assert (first["step"], second["step"]) == (1, 2)
    with pytest.raises(ValueError, match="starts.jsonl is damaged .it lacks the field 'commit'"):
        first["commit"]


def test_only_what_is_moved_away_is_renamed_otherwise():
    found = []
    for path in sorted((ROOT / "fer_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).endswith(
                ("os.replace", "os.rename", ".rename", "shutil.move")
            ):
                found.append(path.relative_to(ROOT / "fer_jax"))
    away = ["data/dataset/build.py", "evaluation/compare/result_store.py", "training/checkpoints.py"]
    assert found == [*map(pathlib.Path, [*away[:2], "io_utils.py", away[2]])]
