"""Tests fer-jax predict on cameras and streams."""

import http.server
import signal
import threading
import types

import pytest
from clips import level, steps, write_clip
from helpers import rows_of

from fer_jax.commands import predict
from fer_jax.inference.media import live, video
from fer_jax.inference.predictor import Predictor


@pytest.fixture(scope="module", autouse=True)
def one_predictor(tiny_run):
    """Loads the tiny network once for all runs in this process, because compiling it is slow."""
    loaded = Predictor.load(tiny_run, "whole", batch_sizes=(1,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "load", lambda *_, **__: loaded)
        yield


@pytest.fixture
def stream_url(tmp_path):
    """Returns the URL of a stream that is interrupted once and then ends."""
    clip, answers = write_clip(tmp_path / "live.ts", steps(8), rate=10).read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answers.append(1)
            self.send_response(200)
            self.send_header("Content-Length", str(len(clip)))
            self.end_headers()
            self.wfile.write(clip[: len(clip) // (1 if len(answers) > 1 else 2)])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://someone:secret@127.0.0.1:{server.server_port}/live.ts"
        server.shutdown()


def test_a_stream_that_breaks_gives_a_table_and_a_video(stream_url, out, drawn, run, monkeypatch, capsys):
    monkeypatch.setattr(live, "wait_before", lambda attempt: 0)
    shown = []
    monkeypatch.setattr(predict, "Window", lambda *_: types.SimpleNamespace(show=shown.append))
    assert run(stream_url, "--show", "--out", out, "--annotate", drawn) == 0
    found, source = rows_of(out), stream_url.replace("someone:secret@", "")
    assert {(row["source"], row["status"]) for row in found} == {(source, "face")}
    numbers = [int(row["frame"]) for row in found]
    assert numbers == sorted(set(numbers)) and numbers[-1] >= 8
    frames = list(video.read_frames(drawn / "live.mp4"))
    assert len(frames) == len(shown) == len(found) and level(frames[-1].image) == 7
    said = capsys.readouterr()
    assert "; reconnecting in 0 s\n" in said.err and "secret" not in said.err + said.out
    assert f"{len(found)} frames, {len(found)} faces -> {out}" in said.out
    assert not out.with_name("out.csv.state").exists()
    assert run(stream_url, "--annotate", drawn) == 2
    assert "live.mp4 exists: move it, or give another folder for --annotate" in capsys.readouterr().err


def test_ctrl_c_ends_a_stream_and_completes_its_table(stream_url, out, run, monkeypatch):
    """The signal arrives during the first connection."""
    classify = Predictor.classify

    def interrupt(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return classify(self, *arguments)

    monkeypatch.setattr(Predictor, "classify", interrupt)
    assert run(stream_url, "--out", out) == 0
    assert len(rows_of(out)) == 1 and not out.with_name("out.csv.state").exists()


def test_rows_of_a_stream_are_in_the_file_at_once(stream_url, out, run, monkeypatch):
    monkeypatch.setattr(live, "wait_before", lambda attempt: 0)
    monkeypatch.setattr(predict, "_MARK_EVERY", 1e9)
    classify, counts = Predictor.classify, []

    def count(self, *arguments):
        counts.append(len(rows_of(out)))
        return classify(self, *arguments)

    monkeypatch.setattr(Predictor, "classify", count)
    run(stream_url, "--out", out)
    assert counts == list(range(len(rows_of(out))))


def test_a_camera_that_is_not_there_is_an_error_in_the_table(out, run):
    assert run("--camera", "97", "--out", out) == 1
    (row,) = rows_of(out)
    assert (row["source"], row["status"]) == ("camera 97", "error")
    assert row["error"].startswith("camera 97 gives no frame: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://a.b/c.PNG?size=9"], "c.PNG?size=9 is an image: download it"),
        (["{in}", "rtsp://a.b/c"], "rtsp://a.b/c is a live input: give it without other inputs"),
        (["--camera", "0", "--timeline", "x.png"], "--timeline is for files, but camera 0 is a live input"),
        (
            ["--camera", "0", "--resume", "--out", "x.csv"],
            "--resume is for files, but camera 0",
        ),
        (["{in}", "--show"], "--show needs a camera or stream: give --camera or a URL"),
    ],
)
def test_what_cannot_be_begun_says_why(arguments, message, tmp_path, run, capsys):
    image = tmp_path / "a.png"
    image.touch()
    assert run(*(str(image) if argument == "{in}" else argument for argument in arguments)) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [image]
