"""Reads video frames, and writes annotated copies with sound."""

import contextlib
import errno
import fractions
import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from PIL import Image, ImageSequence

from fer_jax import io_utils
from fer_jax.inference.media import COPY_ENDINGS, VideoError

# Audio codecs for MP4; with others the copy is a Matroska file.
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"}
_DEFAULT_RATE = 25.0  # frames per second, if unknown
_MAX_MISSING = 1.0  # seconds by which the frames may end before the sound
_CLOCK = fractions.Fraction(1, 90_000)  # of copies, in seconds
_QUALITY = "20"  # x264's constant rate factor: visually near the original


class Frame(NamedTuple):
    """A frame of a video: frame number, from 0, time in seconds, and image uint8 [H, W, 3], RGB, upright."""

    number: int
    seconds: float
    image: np.ndarray


def read_frames(
    source: os.PathLike | str | BinaryIO, every_seconds: float | None = None, start: int = 0
) -> Iterator[Frame]:
    """Yields the frames of a video, in constant memory.

    Args:
      source: path or binary file.
      every_seconds: yield only the first frame of each period of this length; None yields all.
      start: number of the first frame to yield.

    Raises:
      VideoError: the source is not a video, or is damaged; raised after the frames before the damage.
    """
    name, due, ended = _name(source), 0.0, None
    with _open(source) as (container, stream):
        # Times are rounded to the stream's clock, so frames may be early by a tenth of their duration.
        grace = 0.1 / _rate(stream)
        for number, (seconds, frame) in enumerate(_decode(container, stream)):
            ended = max(seconds, frame.time or 0)  # in Matroska the duration counts from the clock's 0
            if every_seconds:
                if seconds + grace < due:
                    continue
                due = every_seconds * (np.floor((seconds + grace) / every_seconds) + 1)
            if number >= start:
                yield Frame(number, seconds, upright(frame))
        promised = _duration(container, stream)
    if ended is None:
        raise VideoError(f"{name} has no decodable frame: expected a complete video file")
    if promised - ended > max(_MAX_MISSING, 0.1 * promised):
        raise VideoError(
            f"{name} ends after {ended:.1f} of {promised:.1f} seconds: expected a complete video file"
        )


@contextlib.contextmanager
def _open(source: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the container and its video stream.

    Raises:
      VideoError: there is no video stream, its codec is unknown, or decoding fails in the context.
    """
    name, file = _name(source), source if hasattr(source, "read") else os.fspath(source)
    if name.lower().endswith(".webp"):  # FFmpeg does not support animated WebP
        file = _to_apng(file)
    try:
        with av.open(file, metadata_errors="replace") as container:
            stream = select_stream(container, name)
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        if error.errno == errno.ENOSPC:  # when writing a copy
            raise
        reason = f"decoded ({error.strerror}): expected a complete video file"
        if isinstance(error, FileNotFoundError | PermissionError):
            reason = f"opened: {error.strerror}"
        raise VideoError(f"{name} cannot be {reason}") from error


def select_stream(container: Any, name: str) -> Any:
    """Returns the video stream of an open container.

    Raises:
      VideoError: there is none, or its codec is unknown.
    """
    # Cover art is a video stream, too.
    covers = Disposition.attached_pic
    stream = next((one for one in container.streams.video if not one.disposition & covers), None)
    if stream is None:
        raise VideoError(f"{name} has no video stream")
    if stream.codec_context is None:
        raise VideoError(f"{name} has an unknown video codec: convert it to H.264")
    return stream


def _to_apng(webp: str | BinaryIO) -> io.BytesIO:
    """Converts a WebP file to animated PNG, with the same frames and times."""
    file = io.BytesIO()
    try:
        with Image.open(webp, formats=("WEBP",)) as image:
            frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
            durations = [frame.info.get("duration", 0) for frame in frames]
            rest = {"append_images": frames[1:], "duration": durations} if frames[1:] else {}
            frames[0].save(file, "PNG", save_all=True, compress_level=1, **rest)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{_name(webp)} cannot be decoded ({error}): expected a complete file") from error
    file.seek(0)
    return file


def _name(source: Any) -> str:
    return getattr(source, "name", "the video") if hasattr(source, "read") else os.fspath(source)


class Header(NamedTuple):
    """The header of a video."""

    size: tuple[int, int]  # (width, height) in pixels
    seconds: float  # 0 if unknown
    frames: int | None  # approximate number from `read_frames`; None if unknown


def read_header(source: os.PathLike | str | BinaryIO, every_seconds: float | None = None) -> Header:
    """Reads the header of a video, without decoding frames; arguments as in `read_frames`.

    Raises:
      VideoError: the source is not a video.
    """
    with _open(source) as (container, stream):
        seconds = _duration(container, stream)
        every = math.ceil(seconds / every_seconds) if every_seconds else None
        frames = stream.frames or round(seconds * _rate(stream)) if every is None else every
        return Header((stream.width, stream.height), max(0.0, seconds), frames or None)


class Copy(NamedTuple):
    """A copy of a video while it is written."""

    path: Path  # final path
    # Adds a frame uint8 [H, W, 3], always of the same size, at a time in seconds; crops odd last rows and
    # columns.
    write: Callable[[np.ndarray, float], None]


@contextlib.contextmanager
def copy_video(original: os.PathLike | str, folder: Path, name: str) -> Iterator[Copy]:
    """Opens a copy of a video for annotated frames, with the original timestamps and sound.

    The file is renamed to its final path when the context ends without an error.

    Args:
      original: path of the original.
      folder: folder of the copy.
      name: name of the copy without extension, which is .mp4 or .mkv depending on the audio codec.

    Raises:
      VideoError: the original cannot be read.
    """
    with _open(original) as (source, frames):
        sound = next((one for one in source.streams.audio if one.codec_context), None)
        codec = sound.codec_context.name if sound else "aac"
        ending = COPY_ENDINGS[codec.removesuffix("float") not in _MP4_SOUND]
        path = folder / f"{name}{ending}"
        partial, kind = io_utils.partial(path), {".mp4": "mp4", ".mkv": "matroska"}[ending]
        try:
            with av.open(os.fspath(partial), "w", format=kind) as copy:
                video = _add_video(copy, _rate(frames))
                sound_out = copy.add_stream_from_template(sound) if sound else None
                packets = source.demux(sound) if sound else iter(())
                waiting = next(packets, None)

                def copy_sound(until: float) -> None:
                    nonlocal waiting
                    while waiting is not None:
                        if waiting.pts is not None and float(waiting.pts * waiting.time_base) > until:
                            return
                        if waiting.dts is not None:
                            waiting.stream = sound_out
                            copy.mux(waiting)
                        waiting = next(packets, None)

                def write(image: np.ndarray, seconds: float) -> None:
                    _write_frame(copy, video, image, seconds)
                    copy_sound(seconds)

                yield Copy(path, write)
                copy.mux(video.encode(None))
                copy_sound(np.inf)
            io_utils.move_into_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def encode(file: BinaryIO, rate: float) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Opens an MP4 video without sound; yields a function that adds a frame, as `Copy.write`.

    Args:
      file: binary file for writing, such as an io.BytesIO; complete when the context ends, and empty without
        frames.
      rate: average frames per second.
    """
    with av.open(file, "w", format="mp4") as container:
        video = _add_video(container, rate)
        yield lambda image, seconds: _write_frame(container, video, image, seconds)
        if video.codec_context.is_open:  # if there were frames
            container.mux(video.encode(None))


@contextlib.contextmanager
def record(folder: Path, name: str) -> Iterator[Copy]:
    """Opens an annotated video without an original, such as for a camera; as `copy_video`."""
    path = folder / f"{name}{COPY_ENDINGS[0]}"
    partial = io_utils.partial(path)
    try:
        with open(partial, "wb") as file, encode(file, _DEFAULT_RATE) as write:
            yield Copy(path, write)
        io_utils.move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _add_video(container: Any, rate: float) -> Any:
    """Returns a new H.264 stream."""
    exact = fractions.Fraction(rate).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=exact, options={"crf": _QUALITY})
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = _CLOCK
    return stream


def _write_frame(container: Any, stream: Any, image: np.ndarray, seconds: float) -> None:
    height, width = (side // 2 * 2 for side in image.shape[:2])
    if not stream.codec_context.is_open:
        stream.height, stream.width = height, width
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
    frame.pts, frame.time_base = round(seconds / _CLOCK), _CLOCK
    container.mux(stream.encode(frame))


def _rate(stream: Any) -> float:
    """Returns the average frames per second."""
    return float(stream.average_rate or _DEFAULT_RATE)


def _duration(container: Any, stream: Any) -> float:
    """Returns the duration in seconds from the header, 0 if unknown."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _decode(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Yields frames with their times in seconds, from 0."""
    first: Any = None
    period = 1 / _rate(stream)
    last = -period
    for frame in container.decode(stream):
        first = frame.time if first is None else first
        # A frame without a new time, such as the last of an AVI, is one period later.
        known = frame.time is not None and frame.time - first > last
        last = frame.time - first if known else last + period
        yield last, frame


def upright(frame: Any) -> np.ndarray:
    """Returns the frame as RGB, rotated by its display matrix."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))
