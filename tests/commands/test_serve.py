"""Tests fer-jax serve: a process from start to SIGTERM, and invalid command lines."""

import itertools
import logging
import re
import signal
import socket
import subprocess
import sys

import httpx2
import numpy as np
import pytest
from helpers import ROOT, call, encode, environment

from fer_jax.commands import serve
from fer_jax.data.sources import synthetic
from fer_jax.pretrained.loaded_model import LoadedModel

LONG = 120  # seconds, far more than any test takes


@pytest.fixture
def server(tiny_run):
    """Returns the process and its address, once it is ready."""
    command = [sys.executable, "-m", "fer_jax", "serve", "--port=0", "--detector=whole", "--timeout=60"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, f"--model={tiny_run}"], cwd=ROOT, env=environment(), **pipes)
    try:
        address = next(found[1] for line in process.stderr if (found := re.search(r"http://([\d.:]+)", line)))
        while httpx2.get(f"http://{address}/ready").status_code != 200:
            pass
        yield process, address
    finally:
        process.kill()
        process.communicate()


def connect(address, request):
    host, port = address.split(":")
    client = socket.create_connection((host, int(port)), timeout=LONG)
    client.sendall(request)
    return client


def test_from_start_to_stop(server, tiny_run):
    process, address = server
    face = synthetic.generate(1, seed=3, split="test")[0][:1]
    file = encode(face[0])
    expected = LoadedModel(tiny_run).predict(face, progress=False)[0]
    malformed = b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
    with connect(address, malformed) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 400")
    body = b'--edge\r\ncontent-disposition: form-data; name="images"; filename="f"\r\n\r\n' + file
    body += b"\r\n--edge--\r\n"
    head = (
        b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)
    )
    with connect(address, head) as slow:
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")  # the service has accepted it and is reading
        reply = httpx2.post(f"http://{address}/predict", files={"images": ("face.png", file)})
        assert reply.status_code == 200 and not {"server", "connection"} & set(reply.headers)
        (found,) = reply.json()["images"][0]["faces"]
        np.testing.assert_allclose(list(found["probabilities"].values()), expected, atol=2e-6)
        process.send_signal(signal.SIGTERM)
        early = list(itertools.takewhile(lambda line: "Waiting for connections" not in line, process.stderr))
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"http://{address}/health")
        slow.sendall(body)
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and str(found["confidence"]).encode() in answer
    assert b"\r\nconnection: close\r\n" in answer.lower()
    log, errors = process.communicate(timeout=LONG)
    errors += "".join(early)
    assert process.returncode == 0
    assert '"POST /predict HTTP/1.1" 200' in log and "face.png" not in log
    assert errors.count("Invalid HTTP request received") == 1 and "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=nowhere", "--detector=whole"], "error: there are no weights nowhere: expected a .safe"),
        (["--margin=20"], "error: margin 20.0: expected a number"),
        (["--max_images=0"], "--max_images: '0': expected int, 1 to 1e+09"),
        (["--port=65536"], "--port: '65536': expected int, 0 to 65535"),
        (["--timeout=nan"], "--timeout: 'nan': expected float, 0.001 to 1e+09"),
        (
            ["--allowed_hosts", "a.org", "b*.org"],
            "--allowed_hosts: 'b*.org': expected a host, *.DOMAIN",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_a_line(arguments, message, monkeypatch, capsys):
    # Its settings are meant for its own process.
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(logging.getLogger("jax"), "setLevel", lambda _: None)
    assert call(serve, *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
