"""Writes copies of images and videos with boxes and labels."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fer_jax import io_utils
from fer_jax.inference import drawing
from fer_jax.inference.media import COPY_ENDINGS
from fer_jax.inference.media.inputs import Input
from fer_jax.inference.structures import DetectedFrame, Face, Track

if TYPE_CHECKING:
    from fer_jax.inference.media import video

_IMAGE_ENDING = ".jpg"


class AnnotationError(ValueError):
    """Copies that cannot be written to the given folder."""


class Annotations(contextlib.AbstractContextManager):
    """Writes annotated copies to a folder, one file at a time.

    A context manager; incomplete copies of videos are removed at its end.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input]):
        """Names the copies of all inputs in an existing folder.

        Raises:
          AnnotationError: a copy would overwrite an original or a recording.
        """
        self.folder, self._names = folder, _name_copies(inputs)
        self._live = {one.path for one in inputs if one.address}
        for one in inputs:
            # Recordings cannot be recreated, unlike copies.
            recording = folder / f"{self._names[one.path]}{COPY_ENDINGS[0]}"
            if one.address and recording.exists():
                raise AnnotationError(f"{recording} exists: move it, or give another folder for --annotate")
        originals = {os.path.realpath(one.path) for one in inputs}
        for one in inputs:
            for ending in COPY_ENDINGS if one.is_video else (_IMAGE_ENDING,):
                copy = os.path.realpath(os.path.join(folder, self._names[one.path] + ending))
                if copy in originals:
                    raise AnnotationError(
                        f"the annotated copy of {one.path} would overwrite the original {copy}: give another "
                        "folder for --annotate"
                    )
        self._open = contextlib.ExitStack()
        self._copy: video.Copy | None = None

    def add(self, frame: DetectedFrame, faces: Sequence[Face], tracks: Sequence[Track]) -> None:
        """Annotates an image or the next frame of a video; finishes the copy at the end of a file.

        In a video, the track IDs and smoothed emotions of the faces are drawn.

        Raises:
          OSError, VideoError: the copy cannot be written.
        """
        if frame.size:
            drawn = drawing.draw_tracks(frame.image, faces, tracks)
            path = self.folder / self._names[frame.source]
            path.parent.mkdir(parents=True, exist_ok=True)
            if frame.frame is None:
                path = path.with_name(path.name + _IMAGE_ENDING)
                Image.fromarray(drawn).save(io_utils.partial(path), "JPEG", quality=92)
                io_utils.move_into_place(io_utils.partial(path), path)
            else:
                if self._copy is None:
                    from fer_jax.inference.media import video

                    copy = (
                        video.record(path.parent, path.name)
                        if frame.source in self._live
                        else video.copy_video(frame.source, path.parent, path.name)
                    )
                    self._copy = self._open.enter_context(copy)
                self._copy.write(drawn, frame.seconds)
        if frame.ends:
            self._open.close()
            self._copy = None

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


def _name_copies(inputs: Sequence[Input]) -> dict[str, str]:
    """Returns the name of each copy by path, without extension."""
    taken, names = set(), {}
    for one in inputs:
        stem = name = os.path.splitext(one.name)[0]
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        names[one.path] = name
    return names
