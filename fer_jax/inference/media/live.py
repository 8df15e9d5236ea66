"""Reads the latest frames of cameras and network streams, in constant memory."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import av
from tqdm import tqdm

from fer_jax.inference.media import video
from fer_jax.inference.media.inputs import Input

_TIMEOUT = 10.0  # seconds without a response or a frame until a connection counts as broken
_LONGEST_WAIT = 30  # seconds between connection attempts
_POLL = 0.1  # seconds between checks of the stop event


def wait_before(attempt: int) -> float:
    """Returns the seconds to wait before a reconnection attempt, counted from 1."""
    return min(2 ** (attempt - 1), _LONGEST_WAIT)


def read_frames(one: Input, every_seconds: float | None, stop: threading.Event) -> Iterator[video.Frame]:
    """Yields the latest frame of a camera or stream on each iteration, dropping others.

    Reconnects after errors, with a delay that grows to half a minute, and logs it to stderr. Inputs with a
    known duration, such as files behind a URL, are read completely, as by `video.read_frames`.

    Args:
      one: the camera or stream.
      every_seconds: yield only the first frame of each period of this length; None yields all.
      stop: ends the iteration when set.

    Yields:
      Frames; numbers include dropped frames, and times are since the start.

    Raises:
      VideoError: the first connection gives no frame.
    """
    began, due, count, attempt = time.monotonic(), 0.0, 0, 0
    while not stop.is_set():
        connection = _Connection(one)
        try:
            while (found := connection.take(stop)) is not None:
                number, frame = found
                attempt, seconds = 0, time.monotonic() - began
                if every_seconds is None or seconds >= due:
                    if every_seconds:
                        due = every_seconds * (seconds // every_seconds + 1)
                    yield video.Frame(count + number, seconds, video.upright(frame))
        finally:
            connection.close()
        count += connection.count
        if connection.has_duration:
            yield from _read_file(one, every_seconds, stop)
            return
        if stop.is_set():
            return
        if not count:
            raise video.VideoError(f"{one.path} gives no frame: {connection.reason}")
        if connection.is_complete:
            return
        attempt += 1
        wait = wait_before(attempt)
        tqdm.write(f"{one.path}: {connection.reason}; reconnecting in {wait:g} s", file=sys.stderr)
        # Not stop.wait, whose lock could block a signal handler that calls stop.set.
        until = time.monotonic() + wait
        while not stop.is_set() and time.monotonic() < until:
            time.sleep(_POLL)


def _read_file(one: Input, every_seconds: float | None, stop: threading.Event) -> Iterator[video.Frame]:
    try:
        for frame in video.read_frames(one.address, every_seconds):
            if stop.is_set():
                return
            yield frame
    except video.VideoError as error:  # its message has the address, possibly with a password
        raise video.VideoError(str(error).replace(one.address, one.path)) from None


class _Connection:
    """Decodes a camera or stream in a thread, and keeps the latest frame.

    Attributes:
      count: number of decoded frames.
      has_duration: whether the stream is a file, which is not decoded here.
      is_complete: whether the server announced the end.
      reason: why the frames ended.
    """

    def __init__(self, one: Input):
        self.count, self.has_duration, self.is_complete, self.reason = 0, False, False, ""
        self._one, self._latest, self._ended, self._closed = one, None, False, False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self, stop: threading.Event) -> tuple[int, Any] | None:
        """Returns the latest frame and its number, waiting for a new one; None at the end."""
        with self._changed:
            while self._latest is None and not self._ended and not stop.is_set():
                self._changed.wait(_POLL)
            latest, self._latest = self._latest, None
        if self._error is not None:
            raise self._error
        return None if stop.is_set() else latest

    def close(self) -> None:
        """Ends the thread at its next frame."""
        self._closed = True
        self._thread.join(_POLL)

    def _run(self) -> None:
        try:
            with av.open(
                self._one.address, format=self._one.device, options=_options(self._one), timeout=_TIMEOUT
            ) as container:
                stream = video.select_stream(container, self._one.path)
                stream.thread_type = "SLICE"  # frame threads would add latency
                if container.duration:
                    self.has_duration = True
                    return
                for frame in container.decode(stream):
                    if self._closed:
                        return
                    with self._changed:
                        self._latest, self.count = (self.count, frame), self.count + 1
                        self._changed.notify()
            self.reason = "it ended"
            # Over HTTP an unannounced end is an error.
            self.is_complete = self._one.address.startswith("http")
        except video.VideoError as error:
            self._error = error
        except (av.FFmpegError, ValueError) as error:  # ValueError if FFmpeg lacks the device
            self.reason = getattr(error, "strerror", None) or str(error)
        except Exception as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()


def _options(one: Input) -> dict[str, str]:
    if one.device == "avfoundation":
        return {"framerate": "30"}  # FFmpeg's default is supported by no camera
    # UDP loses packets and is blocked by many routers.
    return {"rtsp_transport": "tcp"} if one.address.startswith("rtsp") else {}


@contextlib.contextmanager
def interrupt_sets(stop: threading.Event) -> Iterator[None]:
    """Makes the first Ctrl-C within the context set an event; a second one interrupts."""

    def handle(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
