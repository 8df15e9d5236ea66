"""Frames of video files, one after the other, and annotated copies that keep the sound."""

import contextlib
import dataclasses
import fractions
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from fer_jax import io_utils

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
COPY_ENDINGS = (".mp4", ".mkv")
# Sound that an MP4 file may hold; beside other sound the copy is a Matroska file.
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"}
_USUAL_RATE = 25.0  # frames a second, where a file does not say
_MAY_LACK = 1.0  # seconds by which the pictures may end before the sound does
_QUALITY = "20"  # x264's constant rate factor: hardly to be told from the original


class VideoError(ValueError):
    """A video that cannot be read, or not to its end; the message names it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """A picture of a video.

    Attributes:
      number: how many frames are shown before it.
      seconds: when it is shown.
      image: uint8 [H, W, 3], RGB, upright.
    """

    number: int
    seconds: float
    image: np.ndarray


def read_frames(
    source: os.PathLike | str | BinaryIO, every_seconds: float | None = None, start: int = 0
) -> Iterator[Frame]:
    """The frames of a video, decoded as they are asked for; memory does not grow with its length.

    Args:
      source: a file, or one opened for reading in binary.
      every_seconds: gives the first frame of each period of so many seconds only; None gives all.
      start: number of the first frame to give.

    Raises:
      VideoError: it is no video, or damaged; raised where the damage is, after the frames before it.
    """
    name = getattr(source, "name", "the video") if hasattr(source, "read") else os.fspath(source)
    due, ended = 0.0, None
    with _explaining(name), av.open(source if hasattr(source, "read") else name) as container:
        stream = _video_stream(container, name)
        # Times are rounded to the stream's clock: a tenth of a frame sooner is not too soon.
        grace = 0.1 / _rate(stream)
        for number, (seconds, frame) in enumerate(_decode(container, stream)):
            ended = max(seconds, frame.time or 0)  # in Matroska the duration counts from the clock's 0
            if every_seconds:
                if seconds + grace < due:
                    continue
                due = every_seconds * (np.floor((seconds + grace) / every_seconds) + 1)
            if number >= start:
                yield Frame(number, seconds, _upright(frame))
        promised = _duration(container, stream)
    if ended is None:
        raise VideoError(f"{name} holds no frame that can be decoded: expected a whole video file")
    if promised - ended > max(_MAY_LACK, 0.1 * promised):
        raise VideoError(
            f"{name} ends after {ended:.1f} of {promised:.1f} seconds: expected a whole video file"
        )


def count_frames(path: os.PathLike | str, every_seconds: float | None = None) -> int | None:
    """About how many frames `read_frames` gives, by what the file says; None where it does not say."""
    with (
        contextlib.suppress(av.error.FFmpegError, OSError, VideoError),
        av.open(os.fspath(path)) as container,
    ):
        stream = _video_stream(container, path)
        seconds = _duration(container, stream)
        if every_seconds:
            return math.ceil(seconds / every_seconds) or None
        return stream.frames or round(seconds * _rate(stream)) or None
    return None


class Writer:
    """Writes annotated frames as a copy of a video, with its times and its sound.

    A context manager: the file appears under its name when the context ends well, and not at all otherwise.
    """

    def __init__(self, original: os.PathLike | str, folder: Path, name: str):
        """Opens the copy.

        Args:
          original: the video that is copied.
          folder: for the copy.
          name: of it without ending, which the sound decides: .mp4, or .mkv.

        Raises:
          VideoError: the original cannot be read.
        """
        self._resources = contextlib.ExitStack()
        self._name = os.fspath(original)
        with contextlib.ExitStack() as opened, _explaining(self._name):
            source = opened.enter_context(av.open(self._name))
            self._sound = next(iter(source.streams.audio), None)
            codec = self._sound.codec_context.name if self._sound else "aac"
            ending = COPY_ENDINGS[codec.removesuffix("float") not in _MP4_SOUND]
            self.path = folder / f"{name}{ending}"
            kind = {".mp4": "mp4", ".mkv": "matroska"}[ending]
            self._partial = io_utils.partial(self.path)
            opened.callback(self._partial.unlink, missing_ok=True)  # whatever is not renamed
            self._copy = opened.enter_context(av.open(os.fspath(self._partial), "w", format=kind))
            rate = fractions.Fraction(_rate(_video_stream(source, self._name))).limit_denominator(1001)
            self._video = self._copy.add_stream("libx264", rate=rate, options={"crf": _QUALITY})
            self._video.pix_fmt = "yuv420p"
            self._clock = fractions.Fraction(1, 90_000)
            self._video.time_base = self._video.codec_context.time_base = self._clock
            self._sound_out = self._copy.add_stream_from_template(self._sound) if self._sound else None
            self._packets = (packet for packet in source.demux(self._sound)) if self._sound else iter(())
            self._waiting = next(self._packets, None)
            self._resources = opened.pop_all()

    def __enter__(self) -> "Writer":
        return self

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Adds a frame.

        Args:
          image: uint8 [H, W, 3], all of one size; an odd last row or column is cut off.
          seconds: when it is shown.
        """
        image = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
        if not self._video.codec_context.is_open:
            self._video.height, self._video.width = image.shape[:2]
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = round(seconds / self._clock), self._clock
        self._copy.mux(self._video.encode(frame))
        self._copy_sound(seconds)

    def _copy_sound(self, until: float) -> None:
        while self._waiting is not None:
            packet = self._waiting
            if packet.pts is not None and float(packet.pts * packet.time_base) > until:
                return
            if packet.dts is not None:
                packet.stream = self._sound_out
                self._copy.mux(packet)
            self._waiting = next(self._packets, None)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        with self._resources:
            if kind is None:
                self._copy.mux(self._video.encode(None))
                self._copy_sound(np.inf)
                self._copy.close()
                os.replace(self._partial, self.path)


def _video_stream(container: Any, name: Any) -> Any:
    """The first that moves: a song's cover is a video stream, too."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    raise VideoError(f"{name} holds no video: expected a file with moving pictures")


def _rate(stream: Any) -> float:
    """Frames a second, on average."""
    return float(stream.average_rate or _USUAL_RATE)


def _duration(container: Any, stream: Any) -> float:
    """The seconds that the file says the video lasts; 0 where it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _decode(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Frames with the seconds at which they are shown, the first at 0."""
    first, period = None, 1 / _rate(stream)
    last = -period
    for frame in container.decode(stream):
        if frame.time is not None:
            first = frame.time if first is None else first
        # Where a frame has no time, or that of the one before it (AVI's last), the usual period has passed.
        known = frame.time is not None and frame.time - first > last
        last = frame.time - first if known else last + period
        yield last, frame


def _upright(frame: Any) -> np.ndarray:
    """RGB as players show it: turned as the file's display matrix says."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


@contextlib.contextmanager
def _explaining(name: Any) -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise VideoError(f"{name} cannot be opened: {error.strerror}") from error
        raise VideoError(
            f"{name} cannot be decoded ({error.strerror}): expected a whole video file"
        ) from error
