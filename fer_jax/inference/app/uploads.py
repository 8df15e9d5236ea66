"""Checks uploads against limits, before decoding."""

import io
import re

from fer_jax.inference.media import video

MAX_FILES = 10  # images per upload
MEGABYTES = 20  # per image
MAX_PIXELS = 50_000_000  # per image, as from a phone
VIDEO_MEGABYTES = 100
VIDEO_SECONDS = 60
VIDEO_PIXELS = 3840 * 2160

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif")
VIDEO_ENDINGS = ("mp4", "mov", "m4v", "webm", "mkv", "avi")
# The first bytes of MP4 and QuickTime, Matroska and WebM, and AVI. FFmpeg would also read playlists, and then
# the files and addresses in them.
_VIDEO_STARTS = re.compile(rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL)


class UploadError(ValueError):
    """An upload that exceeds a limit; the message says which."""


def check_size(content: bytes, megabytes: int, name: str) -> None:
    """Raises an UploadError if a file is empty or too large."""
    if not content:
        raise UploadError(f"{name} is empty")
    if (count := len(content)) > megabytes * 1e6:
        raise UploadError(f"{name} has {count / 1e6:.0f} MB, more than {megabytes} MB: choose a smaller file")


def open_video(content: bytes, name: str) -> tuple[io.BytesIO, float]:
    """Returns a video as a file, and the duration in seconds from its header, 0 if unknown.

    Raises:
      UploadError: the file is too large or too long, or its type is not allowed.
      VideoError: the file is not a video.
    """
    check_size(content, VIDEO_MEGABYTES, name)
    if not _VIDEO_STARTS.match(content):
        raise UploadError(f"{name} is not a supported video: expected MP4, MOV, WebM, MKV, or AVI")
    file = io.BytesIO(content)
    file.name = name  # for error messages
    header = video.read_header(file)
    width, height = header.size
    if width * height > VIDEO_PIXELS:
        raise UploadError(
            f"{name} has {width:,} x {height:,} pixels, more than 3840 x 2160: choose a smaller one"
        )
    if header.seconds > VIDEO_SECONDS + 1:
        raise UploadError(
            f"{name} lasts {header.seconds:.0f} seconds, more than {VIDEO_SECONDS}: choose a shorter one"
        )
    file.seek(0)
    return file, header.seconds


def plain(text: str) -> str:
    """Escapes text for Markdown: a file name may contain links, images, or formulas."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
