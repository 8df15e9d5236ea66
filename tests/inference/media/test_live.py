"""Tests cameras and network streams, with local servers."""

import contextlib
import http.server
import signal
import socket
import threading
import types

import numpy as np
import pytest
from clips import level, steps, write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_jax.inference.media import inputs, live
from fer_jax.inference.media.video import VideoError


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Returns {"ts", "mp4": bytes of a clip of 8 frames}; "ts" has no duration, as in live video."""
    folder, kinds = tmp_path_factory.mktemp("clips"), ("ts", "mp4")
    return {kind: write_clip(folder / f"a.{kind}", steps(8), rate=10).read_bytes() for kind in kinds}


@pytest.fixture
def serve():
    """Returns serve(answers) -> URL of a server that sends them in turn, each (bytes, length or None)."""
    with contextlib.ExitStack() as servers:

        def start(answers):
            left = iter(answers)

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    content, length = next(left)
                    self.send_response(200)
                    if length is not None:
                        self.send_header("Content-Length", str(length))
                    self.end_headers()
                    if callable(content):
                        content(self.wfile)
                    else:
                        self.wfile.write(content)

                def log_message(self, *_):
                    pass

            server = servers.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            servers.callback(server.shutdown)
            return f"http://someone:secret@127.0.0.1:{server.server_port}/live.ts"

        yield start


@pytest.fixture
def attempts(monkeypatch):
    """Returns the numbers of reconnection attempts, without waiting between them."""
    made = []
    monkeypatch.setattr(live, "wait_before", lambda attempt: made.append(attempt) or 0)
    return made


def read(url, every_seconds=None, stop=None):
    ((one,), _) = inputs.find([url])
    return list(live.read_frames(one, every_seconds, stop or threading.Event()))


def test_a_broken_stream_is_connected_again(clips, serve, attempts, capsys):
    clip = clips["ts"]
    cut = clip[: len(clip) // 2]
    url = serve([(cut, None), (b"", None), (cut, len(clip)), (clip, len(clip))])
    found = read(url)
    assert attempts == [1, 2, 1]  # counted from the last frame
    # Frames that are not consumed in time are dropped, except the last one.
    numbers = [frame.number for frame in found]
    assert numbers == sorted(set(numbers)) and numbers[-1] >= 8
    assert level(found[-1].image) == 7 and found[-1].image.shape == (48, 64, 3)
    seconds = [frame.seconds for frame in found]
    assert seconds == sorted(seconds)
    lines = capsys.readouterr().err.splitlines()
    shown = url.replace("someone:secret@", "")
    assert len(lines) == 3 and all(line.startswith(f"{shown}: ") for line in lines)
    assert all(line.endswith("; reconnecting in 0 s") for line in lines)


def test_waits_grow_to_half_a_minute():
    assert [live.wait_before(attempt) for attempt in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def test_the_latest_frame_is_taken_and_the_others_are_dropped(clips, serve):
    clip, stop = clips["ts"], threading.Event()
    ((one,), _) = inputs.find([serve([(clip, len(clip))])])
    connection = live._Connection(one)
    connection._thread.join(60)  # decodes all of them, because none is consumed
    number, frame = connection.take(stop)
    assert number == 7 and level(frame.to_ndarray(format="rgb24")) == 7
    assert connection.take(stop) is None and connection.is_complete


def test_a_stream_ends_when_it_is_stopped(clips, serve, attempts):
    stop, done = threading.Event(), threading.Event()

    def send(file):
        with contextlib.suppress(OSError):  # because the other end is closed
            while not done.is_set():
                file.write(clips["ts"])

    ((one,), _) = inputs.find([serve([(send, None)])])
    found = []
    for frame in live.read_frames(one, None, stop):
        found.append(frame)
        stop.set()
    done.set()
    assert len(found) == 1 and attempts == []


def test_one_frame_per_period(clips, serve, monkeypatch):
    now = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(live, "time", types.SimpleNamespace(monotonic=lambda: float(next(now))))
    clip = clips["ts"]
    found = read(serve([(clip, len(clip))]), every_seconds=1000.0)
    assert [frame.seconds for frame in found] == [0.5]


def test_a_file_behind_a_url_is_read_to_its_end_without_dropping_frames(clips, serve, attempts):
    clip = clips["mp4"]
    found = read(serve([(clip, len(clip))] * 4))
    assert [frame.number for frame in found] == list(range(8)) and attempts == []
    assert [round(frame.seconds, 2) for frame in found] == [i / 10 for i in range(8)]
    assert [level(frame.image) for frame in found] == list(range(8))


def test_what_never_gives_a_frame_is_an_error_that_hides_the_password(serve, attempts):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(VideoError, match=f"^rtsp://127.0.0.1:{port}/a gives no frame: Connection refused$"):
        read(f"rtsp://someone:secret@127.0.0.1:{port}/a")
    with pytest.raises(VideoError, match="^http://127.0.0.1:.*/live.ts gives no frame: "):
        read(serve([(b"no video", 8)] * 4))
    assert attempts == []
    with pytest.raises(VideoError, match="^camera 97 gives no frame: "):
        list(live.read_frames(inputs.camera(97), None, threading.Event()))


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_mutated_stream_is_read_connected_again_or_refused(data, clips, serve, attempts):
    whole, content = clips["ts"], bytearray(clips["ts"])
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=10)):
        content[place] = data.draw(st.integers(0, 255))
    answers = [(bytes(content), len(content)), *[(whole, len(whole))] * 2]
    with contextlib.suppress(VideoError):
        assert read(serve(answers)) != []


def test_the_first_interrupt_stops_and_the_second_interrupts():
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes ignore it
    with live.interrupt_sets(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
