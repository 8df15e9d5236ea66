"""What the command line names -> the pictures and videos to look at."""

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_jax.data.decoding import IMAGE_ENDINGS
from fer_jax.inference.media.video import VIDEO_ENDINGS


class InputError(ValueError):
    """An input that is not there, or in which there is nothing to look at."""


@dataclasses.dataclass(frozen=True)
class Input:
    """A file to look at.

    Attributes:
      path: as it was reached; the source in results.
      name: below the folder that was named, or the file's own: where an annotated copy goes.
    """

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        """Whether its ending is a video's; all else is taken for a picture."""
        return self.path.lower().endswith(VIDEO_ENDINGS)


def find(words: Sequence[str]) -> list[Input]:
    """The files that words name, each once, in the words' order and sorted within a folder.

    Args:
      words: files, folders (searched at any depth for the usual endings, hidden ones left out) and patterns
        with *, ? or [...], where ** stands for folders at any depth.

    Raises:
      InputError: nothing is there.
    """
    found: dict[str, Input] = {}
    for word in words:
        expanded = os.path.expanduser(word)
        for one in _find(expanded, word):
            found.setdefault(os.path.abspath(one.path), one)
    return list(found.values())


def _find(path: str, word: str) -> Iterator[Input]:
    if os.path.isdir(path):
        below = [Input(os.path.join(path, name), name) for name in _below(path)]
        if not below:
            raise InputError(
                f"there is no picture or video in {word}; expected files ending in "
                f"{', '.join(IMAGE_ENDINGS + VIDEO_ENDINGS)}"
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


def _below(folder: str) -> list[str]:
    """Paths relative to the folder."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = (name for name in files if name.lower().endswith(IMAGE_ENDINGS + VIDEO_ENDINGS))
        found += [Path(parent, name).relative_to(folder).as_posix() for name in kept if name[0] != "."]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
