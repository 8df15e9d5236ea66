"""Finds the images and videos named on the command line."""

import collections
import dataclasses
import glob
import os
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from fer_jax.data.decoding import describe_endings, folder_identity, image_endings, walk
from fer_jax.inference.media import ANIMATED_ENDINGS, ANIMATED_FORMATS, VIDEO_ENDINGS

SAMPLE = Path(__file__).with_name("grace_hopper.jpg")  # a photograph in the public domain, see NOTICE.md
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "tcp://", "udp://", "srt://")


class InputError(ValueError):
    """An input that does not exist, or has no image or video."""


@dataclasses.dataclass(frozen=True)
class Input:
    """A file to process."""

    path: str  # path, and the source in results
    name: str  # path relative to the given folder, or the file name; the name of an annotated copy
    is_video: bool = False  # whether it is read as a video; other files are read as images
    address: str = ""  # FFmpeg address of a camera or stream; '' for a file
    device: str | None = None  # FFmpeg input device for a camera

    @property
    def is_animated(self) -> bool:
        """Whether it is an image with several frames, of which only the first is read."""
        if self.is_video or not self.path.lower().endswith(ANIMATED_ENDINGS):
            return False
        try:
            with Image.open(self.path, formats=ANIMATED_FORMATS) as image:
                return getattr(image, "is_animated", False)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # reported when it is read
            return False


def camera(number: int) -> Input:
    """Returns a camera of this machine by its number, from 0."""
    is_mac = sys.platform == "darwin"
    address, device = (str(number), "avfoundation") if is_mac else (f"/dev/video{number}", "v4l2")
    return Input(f"camera {number}", f"camera_{number}", True, address, device)


def _stream(url: str) -> Input:
    """Returns a stream, named without the user and password in its URL.

    Raises:
      InputError: the URL is an image.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.path.lower().endswith(image_endings()):
        raise InputError(f"{url} is an image: download it and give the file")
    path = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Input(path, os.path.basename(parts.path) or "stream", True, url)


def find(words: Sequence[str], frames: bool = False) -> tuple[list[Input], collections.Counter[str]]:
    """Finds input files, each once, in the given order and sorted within a folder.

    Args:
      words: files, folders (searched recursively for known extensions, following links, without hidden
        files), glob patterns (** matches folders at any depth), and URLs of streams.
      frames: whether GIF and WebP files are read as videos.

    Returns:
      The inputs, and the number of skipped files by extension.

    Raises:
      InputError: a word matches nothing.
    """
    found, skipped = {}, collections.Counter()
    videos = VIDEO_ENDINGS + (ANIMATED_ENDINGS if frames else ())
    for word in words:
        if word.lower().startswith(STREAMS):
            found.setdefault(word, _stream(word))
            continue
        for one in _find(os.path.expanduser(word), word, skipped):
            one = dataclasses.replace(one, is_video=one.path.lower().endswith(videos))
            found.setdefault(os.path.abspath(one.path), one)
    return list(found.values()), skipped


def _find(path: str, word: str, skipped: collections.Counter[str]) -> Iterator[Input]:
    if os.path.isdir(path):
        below = [Input(os.path.join(path, name), name) for name in _below(path, skipped)]
        if not below:
            raise InputError(
                f"there is no image or video in {word}; expected files ending in "
                f"{', '.join(image_endings() + VIDEO_ENDINGS)}{describe(skipped)}"
            )
        yield from below
    elif os.path.exists(path):
        yield Input(path, os.path.basename(path))
    elif matches := sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name)):
        yield from (Input(match, os.path.basename(match)) for match in matches)
    elif glob.has_magic(path):
        raise InputError(f"no file matches {word}")
    else:
        raise InputError(f"{word} does not exist")


def describe(skipped: collections.Counter[str]) -> str:
    """Describes skipped files by extension, to append to a message; '' if there are none."""
    return f"; skipped: {describe_endings(skipped)}" if skipped else ""


def _below(folder: str, skipped: collections.Counter[str]) -> list[str]:
    """Returns paths relative to the folder; follows links to each folder once."""
    found = []
    for parent, files in walk(folder, {folder_identity(folder, _refuse)}, _refuse):
        for name in files:
            if name.lower().endswith(image_endings() + VIDEO_ENDINGS):
                found.append(Path(parent, name).relative_to(folder).as_posix())
            else:
                skipped[os.path.splitext(name)[1].lower()] += 1
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
