"""fer-jax serve: a real process from its start to SIGTERM, and what its command line refuses."""

import logging
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, call, environment, needed
from PIL import Image

from fer_jax.commands import serve
from fer_jax.data.sources import synthetic
from fer_jax.loaded_model import LoadedModel

needed("fastapi", "serve")
needed("uvicorn", "serve")
httpx2 = needed("httpx2", "test")

LONG = 120  # seconds: no test comes near


@pytest.fixture(scope="module")
def server(tiny_run):
    """The process and its address, ready to answer."""
    command = [sys.executable, "-m", "fer_jax", "serve", "--port=0", "--detector=whole", "--timeout=60"]
    process = subprocess.Popen(
        [*command, f"--model={tiny_run}"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = next(found[1] for line in process.stderr if (found := re.search(r"http://([\d.:]+)", line)))
        while httpx2.get(f"http://{address}/ready").status_code != 200:
            pass
        yield process, address
    finally:
        process.kill()
        process.communicate()


def test_from_start_to_stop(server, tiny_run, tmp_path):
    process, address = server
    face = synthetic.generate(1, seed=3, split="test")[0][:1]
    Image.fromarray(face[0, ..., 0]).save(tmp_path / "face.png")
    content = (tmp_path / "face.png").read_bytes()
    expected = LoadedModel(tiny_run).predict(face, progress=False)[0]
    body = b'--edge\r\ncontent-disposition: form-data; name="images"; filename="f"\r\n\r\n' + content
    body += b"\r\n--edge--\r\n"
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=LONG) as slow:
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
            b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)
        )
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")  # the service reads it: it was accepted
        reply = httpx2.post(f"http://{address}/predict", files={"images": ("face.png", content)})
        assert reply.status_code == 200 and "server" not in reply.headers
        (found,) = reply.json()["images"][0]["faces"]
        np.testing.assert_allclose(list(found["probabilities"].values()), expected, atol=2e-6)
        process.send_signal(signal.SIGTERM)
        for line in process.stderr:
            if "Waiting for connections to close" in line:
                break
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"http://{address}/health")
        slow.sendall(body)
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and str(found["confidence"]).encode() in answer
    log, errors = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert '"POST /predict HTTP/1.1" 200' in log and "face.png" not in log
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--model=nowhere", "--detector=whole"],
            1,
            "error: there are no weights nowhere: expected a .safetensors file",
        ),
        (["--margin=20"], 1, "error: margin 20.0: expected the frame's side"),
        (["--max_images=0"], 2, "--max_images: '0' is no whole number from 1 on"),
        (["--timeout=nan"], 2, "--timeout: 'nan' is no number above 0"),
    ],
)
def test_mistakes_on_the_command_line_are_a_line(arguments, code, message, monkeypatch, capsys):
    # What it sets is for a process of its own.
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(logging.getLogger("jax"), "setLevel", lambda _: None)
    assert call(serve, *arguments) == code
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
