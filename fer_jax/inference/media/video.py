"""Reads the frames of videos, and writes annotated copies that keep the sound."""

import contextlib
import dataclasses
import fractions
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from fer_jax import io_utils

VIDEO_ENDINGS = tuple(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .wmv .flv .3gp .ts .mts .m2ts".split())
COPY_ENDINGS = (".mp4", ".mkv")
# Audio codecs that an MP4 file may hold; with another one the copy is a Matroska file.
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"}
_DEFAULT_RATE = 25.0  # frames per second, if a file does not say
_MAX_MISSING = 1.0  # seconds by which the frames may end before the sound does
_QUALITY = "20"  # x264's constant rate factor: visually near the original


class VideoError(ValueError):
    """A video that cannot be read to its end; the message names it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video.

    Attributes:
      number: frame number, from 0.
      seconds: time at which it is shown.
      image: uint8 [H, W, 3], RGB, upright.
    """

    number: int
    seconds: float
    image: np.ndarray


def read_frames(
    source: os.PathLike | str | BinaryIO, every_seconds: float | None = None, start: int = 0
) -> Iterator[Frame]:
    """Yields the frames of a video, in memory that does not grow with its length.

    Args:
      source: path, or a file opened for reading in binary.
      every_seconds: yields the first frame of each period of so many seconds only; None yields all.
      start: number of the first frame to yield.

    Raises:
      VideoError: if it is no video, or is damaged; raised after the frames before the damage.
    """
    name, due, ended = _name(source), 0.0, None
    with _open(source) as (container, stream):
        # Times are rounded to the stream's clock: a frame may be early by a tenth of its duration.
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
    if promised - ended > max(_MAX_MISSING, 0.1 * promised):
        raise VideoError(
            f"{name} ends after {ended:.1f} of {promised:.1f} seconds: expected a whole video file"
        )


@contextlib.contextmanager
def _open(source: os.PathLike | str | BinaryIO) -> Iterator[tuple[Any, Any]]:
    """Yields the container and its video stream.

    Raises:
      VideoError: if there is no such stream, its codec is unknown, or what is done with it fails.
    """
    name, file = _name(source), source if hasattr(source, "read") else os.fspath(source)
    with _explaining(name), av.open(file, metadata_errors="replace") as container:
        # A song's cover is a video stream, too.
        covers = av.stream.Disposition.attached_pic
        stream = next((one for one in container.streams.video if not one.disposition & covers), None)
        if stream is None:
            raise VideoError(f"{name} holds no video: expected a file with a video stream")
        if stream.codec_context is None:
            raise VideoError(f"{name} has an unknown video codec: convert it to H.264")
        stream.thread_type = "AUTO"
        yield container, stream


def _name(source: Any) -> str:
    return getattr(source, "name", "the video") if hasattr(source, "read") else os.fspath(source)


class Header(NamedTuple):
    """What the header of a video says.

    Attributes:
      size: (width, height) in pixels.
      seconds: duration; 0 if unknown.
      frames: about how many frames `read_frames` yields; None if unknown.
    """

    size: tuple[int, int]
    seconds: float
    frames: int | None


def read_header(source: os.PathLike | str | BinaryIO, every_seconds: float | None = None) -> Header:
    """Reads the header of a video; the frames may still turn out to be damaged.

    Args:
      source: as for `read_frames`.
      every_seconds: as for `read_frames`.

    Raises:
      VideoError: if it is no video.
    """
    with _open(source) as (container, stream):
        seconds = _duration(container, stream)
        every = math.ceil(seconds / every_seconds) if every_seconds else None
        frames = stream.frames or round(seconds * _rate(stream)) if every is None else every
        return Header((stream.width, stream.height), max(0.0, seconds), frames or None)


class Writer:
    """Writes annotated frames as a copy of a video, with its timestamps and its sound.

    A context manager: the file appears under its name when the context ends without an error.
    """

    def __init__(self, original: os.PathLike | str, folder: Path, name: str):
        """Opens the copy.

        Args:
          original: path of the video that is copied.
          folder: of the copy.
          name: of the copy, without its ending, which depends on the audio codec: .mp4 or .mkv.

        Raises:
          VideoError: if the original cannot be read.
        """
        self._resources = contextlib.ExitStack()
        self._name = os.fspath(original)
        with contextlib.ExitStack() as opened, _explaining(self._name):
            source, frames = opened.enter_context(_open(self._name))
            self._sound = next((one for one in source.streams.audio if one.codec_context), None)
            codec = self._sound.codec_context.name if self._sound else "aac"
            ending = COPY_ENDINGS[codec.removesuffix("float") not in _MP4_SOUND]
            self.path = folder / f"{name}{ending}"
            kind = {".mp4": "mp4", ".mkv": "matroska"}[ending]
            self._partial = io_utils.partial(self.path)
            opened.callback(self._partial.unlink, missing_ok=True)  # if it was not renamed
            self._copy = opened.enter_context(av.open(os.fspath(self._partial), "w", format=kind))
            rate = fractions.Fraction(_rate(frames)).limit_denominator(1001)
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
          image: uint8 [H, W, 3], of the same size each time; an odd last row or column is cut off.
          seconds: time at which it is shown.
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


def _rate(stream: Any) -> float:
    """Returns the average number of frames per second."""
    return float(stream.average_rate or _DEFAULT_RATE)


def _duration(container: Any, stream: Any) -> float:
    """Returns the duration in seconds by the file's header; 0 if it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _decode(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Yields frames with the times in seconds at which they are shown, the first at 0."""
    first, period = None, 1 / _rate(stream)
    last = -period
    for frame in container.decode(stream):
        if frame.time is not None:
            first = frame.time if first is None else first
        # A frame without a time, or with that of the one before it (AVI's last), is shown one period later.
        known = frame.time is not None and frame.time - first > last
        last = frame.time - first if known else last + period
        yield last, frame


def _upright(frame: Any) -> np.ndarray:
    """Returns the frame as RGB, rotated by the file's display matrix, as players show it."""
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
