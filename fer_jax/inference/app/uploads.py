"""What visitors send: bytes of files of any kind -> pictures, or a message that says what is wrong."""

import contextlib
import io
import re
from typing import BinaryIO

import av
import numpy as np

from fer_jax.data import decoding

MAX_FILES = 10  # pictures at a time
MEGABYTES = 20  # of a picture
MAX_PIXELS = 50_000_000  # of a picture: what a telephone takes
VIDEO_MEGABYTES = 100
VIDEO_SECONDS = 60
VIDEO_PIXELS = 3840 * 2160

PICTURE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif")
VIDEO_ENDINGS = ("mp4", "mov", "m4v", "webm", "mkv", "avi")
# The first bytes of MP4 and QuickTime, of Matroska and WebM, and of AVI. FFmpeg itself also takes playlists,
# which name other files and addresses that it then reads.
_VIDEO_STARTS = re.compile(rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL)


class UploadError(ValueError):
    """A file that is not shown; the message says why, in words for a visitor."""


def read_upload(content: bytes, name: str) -> np.ndarray:
    """A visitor's picture.

    Args:
      content: of the file.
      name: of it, for messages.

    Returns:
      uint8 [H, W] when grey, else [H, W, 3]; upright.

    Raises:
      UploadError: it is too large, damaged or no picture.
    """
    _check_size(len(content), MEGABYTES, name)
    try:
        return decoding.decode(content, name, MAX_PIXELS)
    except decoding.PictureError as error:
        raise UploadError(str(error)) from error


def open_video(content: bytes, name: str) -> tuple[BinaryIO, float]:
    """A visitor's video, and how many seconds it lasts by its own account (0: it does not say).

    Nothing but its beginning is looked at; the frames may still turn out damaged.

    Raises:
      UploadError: it is too large, too long or no video.
    """
    _check_size(len(content), VIDEO_MEGABYTES, name)
    if not _VIDEO_STARTS.match(content):
        raise UploadError(f"{name} is not a video that can be read: expected MP4, MOV, WebM, MKV or AVI")
    try:
        with contextlib.closing(av.open(io.BytesIO(content))) as container:
            streams = container.streams.video
            if not streams:
                raise UploadError(f"{name} holds no moving pictures, or is cut off")
            width, height = max((stream.width, stream.height) for stream in streams)
            seconds = max(0.0, (container.duration or 0) / av.time_base)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, UploadError):
            raise
        raise UploadError(f"{name} is damaged or no video: send a whole file") from error
    if width * height > VIDEO_PIXELS:
        raise UploadError(
            f"{name} has {width:,} x {height:,} pixels, more than 3840 x 2160: send a smaller one"
        )
    if seconds > VIDEO_SECONDS + 1:
        raise UploadError(
            f"{name} lasts {seconds:.0f} seconds, more than {VIDEO_SECONDS}: cut it to a shorter one"
        )
    return io.BytesIO(content), seconds


def _check_size(count: int, megabytes: int, name: str) -> None:
    if not count:
        raise UploadError(f"{name} is empty")
    if count > megabytes * 1e6:
        raise UploadError(f"{name} has {count / 1e6:.0f} MB, more than {megabytes} MB: send a smaller one")


def plain(text: str) -> str:
    """Text as Markdown that shows just that: a file's name may hold links, pictures or formulas."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
