"""Tests downloads from a local server: complete, resumed, damaged, rejected, and offline."""

import concurrent.futures
import hashlib
import http.server
import logging
import re
import threading

import pytest

from fer_jax.pretrained import download, sources

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """A server of CONTENT under any name except /absent, with support for ranges."""

    def do_HEAD(self):
        self.send_response(302)
        self.send_header("X-Linked-Etag", self.server.tag)
        self.end_headers()

    def do_GET(self):
        if self.server.asked:
            self.server.asked_again.set()
        self.server.asked.append(self.headers.get("Range"))
        self.server.begun.set()
        self.server.gate.wait(60)
        if self.path.endswith("/absent"):
            self.send_error(404)
            return
        begin = 0
        if self.server.resumes and (ranges := self.headers.get("Range")):
            begin = int(ranges.removeprefix("bytes=").removesuffix("-"))
        if begin >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        self.wfile.write(CONTENT[begin : self.server.ends])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.resumes, server.ends, server.tag = [], True, None, f'"{SHA256}"'
    server.begun, server.asked_again, server.gate = threading.Event(), threading.Event(), threading.Event()
    server.gate.set()
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetch(server, name="weights.h5", checksum=f"sha256:{SHA256[:8]}"):
    return download.fetch(f"{server.url}/{name}", checksum=checksum, folder="keras/b0", megabytes=1)


def test_a_file_is_fetched_once(server, cache):
    path = fetch(server)
    assert path == cache / "keras" / "b0" / "weights.h5"
    assert path.read_bytes() == CONTENT
    assert fetch(server) == path
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["weights.h5"]


def test_the_cache_is_in_the_home_directory_unless_the_variable_moves_it(monkeypatch, tmp_path):
    monkeypatch.delenv(download.CACHE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_dir() == tmp_path / ".cache" / "fer_jax"


@pytest.mark.parametrize(("kept", "resumes"), [(1000, True), (len(CONTENT), True), (1000, False)])
def test_an_interrupted_download_continues_or_starts_anew(server, cache, kept, resumes):
    server.resumes = resumes
    partial = cache / "keras" / "b0" / "weights.h5.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:kept])
    assert fetch(server).read_bytes() == CONTENT
    assert server.asked == [f"bytes={kept}-"]


def test_a_connection_that_breaks_keeps_what_came(server, cache):
    server.ends = 5000
    with pytest.raises(download.DownloadError, match="cannot be downloaded"):
        fetch(server)
    assert (cache / "keras" / "b0" / "weights.h5.part").stat().st_size <= 5000
    server.ends = None
    assert fetch(server).read_bytes() == CONTENT


def test_md5(server):
    assert fetch(server, checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}").read_bytes() == CONTENT


def test_another_file_than_expected_is_removed(server, cache):
    with pytest.raises(download.WrongFileError, match="is not the expected file \\(expected sha256:0123\\)"):
        fetch(server, checksum="sha256:0123")
    assert list((cache / "keras" / "b0").iterdir()) == []


def test_the_checksum_that_the_server_gives(server):
    assert fetch(server, checksum="").read_bytes() == CONTENT
    server.tag = f'"{"0" * 64}"'
    with pytest.raises(download.WrongFileError, match="is not the expected file"):
        fetch(server, name="other.safetensors", checksum="")


def test_a_wrong_file_put_by_hand_is_named(server, cache):
    path = fetch(server)
    path.write_bytes(b"something else")
    with pytest.raises(download.WrongFileError, match=f"{path} is not the file from .*: remove it"):
        fetch(server)


def test_a_refusal_names_the_reason(server):
    with pytest.raises(download.DownloadError, match="HTTP status 404"):
        fetch(server, name="absent")


def test_offline_says_which_file_to_put_where(cache):
    target = cache / "keras" / "b0" / "weights.h5"
    with pytest.raises(download.DownloadError, match="no connection") as caught:
        download.fetch("http://127.0.0.1:9/weights.h5", checksum="md5:ab", folder="keras/b0", megabytes=21.4)
    assert f"copy it to {target} (about 21 MB, md5:ab)" in str(caught.value)


class Notice(logging.Handler):
    """A logging handler that sets an event at a message."""

    def __init__(self, words, event):
        super().__init__()
        self.words, self.event = words, event

    def emit(self, record):
        if self.words in record.getMessage():
            self.event.set()


@pytest.mark.parametrize("checksum", [f"sha256:{SHA256}", ""])
def test_of_two_that_want_a_file_one_downloads_it(server, caplog, checksum):
    """The first download is blocked until the second process waits or contacts the server."""
    server.tag = ""
    server.gate.clear()
    notice = Notice("waiting for another process that uses", server.asked_again)
    logging.getLogger().addHandler(notice)
    with caplog.at_level(logging.INFO), concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = [pool.submit(fetch, server, checksum=checksum)]
        begun = server.begun.wait(60)
        found.append(pool.submit(fetch, server, checksum=checksum))
        noticed = server.asked_again.wait(60)
        server.gate.set()
        paths = {future.result() for future in found}
    logging.getLogger().removeHandler(notice)
    assert begun and noticed and server.asked == [None]
    assert [path.read_bytes() for path in paths] == [CONTENT]


def test_files_of_the_hub_are_pinned():
    """Files without a checksum get the hub's at their first download."""
    hub = {one.url.split("/")[4]: one for one in sources.SOURCES if "huggingface.co" in one.url}
    pinned = {tag: one for tag, one in hub.items() if one.checksum}
    assert len(pinned) >= 6
    for one in pinned.values():
        assert re.fullmatch("sha256:[0-9a-f]{64}", one.checksum)
        assert re.search("/resolve/([0-9a-f]{40}|main)/model.safetensors$", one.url)
    assert len({one.checksum for one in pinned.values()}) == len(pinned)
