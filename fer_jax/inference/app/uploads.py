"""Limits on what visitors upload, checked before anything is decoded."""

import io
import re

from fer_jax.inference.media import video

MAX_FILES = 10  # images at a time
MEGABYTES = 20  # of an image
MAX_PIXELS = 50_000_000  # of an image: what a phone takes
VIDEO_MEGABYTES = 100
VIDEO_SECONDS = 60
VIDEO_PIXELS = 3840 * 2160

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif")
VIDEO_ENDINGS = ("mp4", "mov", "m4v", "webm", "mkv", "avi")
# The first bytes of MP4 and QuickTime, of Matroska and WebM, and of AVI. FFmpeg also reads playlists, which
# name other files and addresses that it then reads.
_VIDEO_STARTS = re.compile(rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL)


class UploadError(ValueError):
    """An upload beyond the limits; the message tells the visitor which."""


def check_size(content: bytes, megabytes: int, name: str) -> None:
    """Raises an UploadError if a file is empty or larger than so many megabytes."""
    if not content:
        raise UploadError(f"{name} is empty")
    if (count := len(content)) > megabytes * 1e6:
        raise UploadError(f"{name} has {count / 1e6:.0f} MB, more than {megabytes} MB: send a smaller one")


def open_video(content: bytes, name: str) -> tuple[io.BytesIO, float]:
    """Returns a video as a file, and its duration in seconds by its header, 0 if it does not say.

    Raises:
      UploadError: if the file is too large, too long, or of a type that is not allowed.
      VideoError: if it is not a video.
    """
    check_size(content, VIDEO_MEGABYTES, name)
    if not _VIDEO_STARTS.match(content):
        raise UploadError(f"{name} is not a video that can be read: expected MP4, MOV, WebM, MKV or AVI")
    file = io.BytesIO(content)
    file.name = name  # for error messages
    header = video.read_header(file)
    width, height = header.size
    if width * height > VIDEO_PIXELS:
        raise UploadError(
            f"{name} has {width:,} x {height:,} pixels, more than 3840 x 2160: send a smaller one"
        )
    if header.seconds > VIDEO_SECONDS + 1:
        raise UploadError(
            f"{name} lasts {header.seconds:.0f} seconds, more than {VIDEO_SECONDS}: cut it to a shorter one"
        )
    file.seek(0)
    return file, header.seconds


def plain(text: str) -> str:
    """Returns Markdown that shows just the text: a file's name may hold links, images or formulas."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
