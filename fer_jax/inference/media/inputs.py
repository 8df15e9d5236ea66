"""Finds the images and videos that the command line names."""

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
    """An input that does not exist, or in which there is no image or video."""


@dataclasses.dataclass(frozen=True)
class Input:
    """A file to process.

    Attributes:
      path: as it was reached; the source in results.
      name: path below the folder that was named, or the file's own name: where an annotated copy goes.
      is_video: whether it is read as a video; any other file is taken for an image.
      address: of a camera or stream, as FFmpeg takes it; '' for a file.
      device: FFmpeg's name for the system's cameras, if it is one.
    """

    path: str
    name: str
    is_video: bool = False
    address: str = ""
    device: str | None = None

    @property
    def is_animated(self) -> bool:
        """Whether it is an image with several frames, of which only the first is read."""
        if self.is_video or not self.path.lower().endswith(ANIMATED_ENDINGS):
            return False
        try:
            with Image.open(self.path, formats=ANIMATED_FORMATS) as image:
                return getattr(image, "is_animated", False)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # told when it is read
            return False


def camera(number: int) -> Input:
    """Returns a camera of this machine by its number, from 0."""
    is_mac = sys.platform == "darwin"
    address, device = (str(number), "avfoundation") if is_mac else (f"/dev/video{number}", "v4l2")
    return Input(f"camera {number}", f"camera_{number}", True, address, device)


def _stream(url: str) -> Input:
    """Returns a stream, under a name without the user and password that its URL may have.

    Raises:
      InputError: the URL is an image's.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.path.lower().endswith(image_endings()):
        raise InputError(f"{url} is an image: download it, and give the file")
    path = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Input(path, os.path.basename(parts.path) or "stream", True, url)


def find(words: Sequence[str], frames: bool = False) -> tuple[list[Input], collections.Counter[str]]:
    """Finds the files that words name, each once, in the words' order and sorted within a folder.

    Args:
      words: files, folders (searched at any depth for the usual endings, without hidden ones; links are
        followed), patterns with *, ? or [...], where ** stands for folders at any depth, and URLs of streams.
      frames: whether GIF and WebP files are read as videos.

    Returns:
      The files, and how many others the folders hold, by their endings.

    Raises:
      InputError: if a word names nothing.
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
    """Returns how many files were skipped, by their endings, to append to a message; '' if none was."""
    return f"; skipped: {describe_endings(skipped)}" if skipped else ""


def _below(folder: str, skipped: collections.Counter[str]) -> list[str]:
    """Returns paths relative to the folder; each folder that links lead to is entered once."""
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
