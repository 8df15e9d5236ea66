"""Reads cameras and streams over the network: the latest frame each time, in constant memory."""

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

_TIMEOUT = 10.0  # seconds without an answer, or without a frame, after which a connection is broken
_LONGEST_WAIT = 30  # seconds between attempts to connect
_POLL = 0.1  # seconds after which a request to stop is seen


def wait_before(attempt: int) -> float:
    """Returns how many seconds to wait before an attempt to connect again, from 1."""
    return min(2 ** (attempt - 1), _LONGEST_WAIT)


def read_frames(one: Input, every_seconds: float | None, stop: threading.Event) -> Iterator[video.Frame]:
    """Yields the latest frame of a camera or stream whenever the next one is asked for; others are dropped.

    A connection that breaks is opened again, after a wait that grows to half a minute, until it is stopped; a
    line on stderr says so. What has a known duration, such as a file behind a URL, is read to its end
    without dropping frames, as `video.read_frames` does.

    Args:
      one: the camera or stream.
      every_seconds: yields the first frame of each period of so many seconds only; None yields all.
      stop: ends the frames when it is set.

    Yields:
      Frames, numbered with those that were dropped; their time is when they are taken, since the start.

    Raises:
      VideoError: there is no frame when it is opened for the first time.
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
        tqdm.write(f"{one.path}: {connection.reason}; connecting again in {wait:g} s", file=sys.stderr)
        # Not stop.wait, whose lock a signal handler that calls stop.set may find taken.
        until = time.monotonic() + wait
        while not stop.is_set() and time.monotonic() < until:
            time.sleep(_POLL)


def _read_file(one: Input, every_seconds: float | None, stop: threading.Event) -> Iterator[video.Frame]:
    try:
        for frame in video.read_frames(one.address, every_seconds):
            if stop.is_set():
                return
            yield frame
    except video.VideoError as error:  # which names an address that may hold a password
        raise video.VideoError(str(error).replace(one.address, one.path)) from None


class _Connection:
    """Decodes a camera or stream in a thread, and keeps the latest frame.

    Attributes:
      count: number of frames that were decoded.
      has_duration: whether it turned out to be a file, of which no frame was decoded.
      is_complete: whether the server said that it has sent all.
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
        """Returns the latest frame and its number, waiting for the next if it was taken; None at the end."""
        with self._changed:
            while self._latest is None and not self._ended and not stop.is_set():
                self._changed.wait(_POLL)
            latest, self._latest = self._latest, None
        if self._error is not None:
            raise self._error
        return None if stop.is_set() else latest

    def close(self) -> None:
        """Ends the thread at its next frame; does not wait longer than it takes to notice."""
        self._closed = True
        self._thread.join(_POLL)

    def _run(self) -> None:
        try:
            with av.open(
                self._one.address, format=self._one.device, options=_options(self._one), timeout=_TIMEOUT
            ) as container:
                stream = video.select_stream(container, self._one.path)
                stream.thread_type = "SLICE"  # threads of whole frames would delay them
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
            # Over HTTP an end that was not announced is an error.
            self.is_complete = self._one.address.startswith("http")
        except video.VideoError as error:
            self._error = error
        except (av.FFmpegError, ValueError) as error:  # the latter where FFmpeg has no such device
            self.reason = getattr(error, "strerror", None) or str(error)
        except Exception as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()


def _options(one: Input) -> dict[str, str]:
    if one.device == "avfoundation":
        return {"framerate": "30"}  # its own default is one that no camera has
    # UDP loses packets, and is blocked by many routers.
    return {"rtsp_transport": "tcp"} if one.address.startswith("rtsp") else {}


@contextlib.contextmanager
def interrupt_sets(stop: threading.Event) -> Iterator[None]:
    """Makes the first Ctrl-C within the context set an event; a second one interrupts as usual."""

    def handle(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
