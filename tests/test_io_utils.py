"""A file is there whole or not at all, with the permissions that any other file gets."""

import os

import pytest

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
