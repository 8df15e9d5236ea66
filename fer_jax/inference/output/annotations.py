"""Copies of pictures and videos with what was found drawn in."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fer_jax import io_utils
from fer_jax.inference.media import video
from fer_jax.inference.media.inputs import Input
from fer_jax.inference.media.stream import DetectedFrame
from fer_jax.inference.media.tracking import Track
from fer_jax.inference.output import drawing
from fer_jax.inference.structures import Face

_PICTURE_ENDING = ".jpg"


class AnnotationError(ValueError):
    """Copies that cannot be where they were wanted."""


class Annotations:
    """A folder of annotated copies, a file at a time.

    A context manager; the copy of a video that is not whole when it is left does not appear.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input]):
        """Names the copies.

        Args:
          folder: for them, which is there.
          inputs: all that may be drawn on.

        Raises:
          AnnotationError: a copy would take the place of an original.
        """
        self._folder = folder
        self._places = _name_copies(inputs)
        originals = {os.path.realpath(one.path) for one in inputs}
        for one in inputs:
            for ending in video.COPY_ENDINGS if one.is_video else (_PICTURE_ENDING,):
                copy = os.path.realpath(os.path.join(folder, self._places[one.path] + ending))
                if copy in originals:
                    raise AnnotationError(
                        f"the annotated copy of {one.path} would take the place of the original {copy}: give "
                        "another folder for --annotate"
                    )
        self._writer = contextlib.ExitStack()
        self._video: video.Writer | None = None

    def add(self, seen: DetectedFrame, faces: Sequence[Face], tracks: Sequence[Track]) -> None:
        """Draws on a picture, or on the next frame of a video.

        Args:
          seen: the picture, with its pixels.
          faces: in it.
          tracks: of its faces where it is a frame: their numbers and smoothed emotions are drawn.

        Raises:
          OSError, VideoError: the copy cannot be written.
        """
        if not tracks:
            drawn = drawing.draw(seen.image, faces)
        else:
            smooth = [
                dataclasses.replace(face, probabilities=track.probabilities)
                for face, track in zip(faces, tracks, strict=True)
            ]
            drawn = drawing.draw(seen.image, smooth, [track.number for track in tracks])
        if seen.frame is None:
            self._save(seen.source, drawn)
            return
        if self._video is None:
            place = self._place(seen.source)
            writer = video.Writer(seen.source.path, place.parent, place.name)
            self._video = self._writer.enter_context(writer)
        self._video.write(drawn, seen.seconds)

    def end(self) -> None:
        """Finishes the copy of a video, which is then there under its name."""
        self._writer.close()
        self._video = None

    def __enter__(self) -> "Annotations":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def _save(self, source: Input, drawn: np.ndarray) -> None:
        path = self._place(source)
        path = path.with_name(path.name + _PICTURE_ENDING)
        Image.fromarray(drawn).save(io_utils.partial(path), "JPEG", quality=92)
        os.replace(io_utils.partial(path), path)

    def _place(self, source: Input) -> Path:
        """Where the copy goes, without its ending."""
        path = self._folder / self._places[source.path]
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _name_copies(inputs: Sequence[Input]) -> dict[str, str]:
    """The copy's name, without its ending, for each path: as the original lies below the folder it is in."""
    taken, names = set(), {}
    for one in inputs:
        stem = place = os.path.splitext(one.name)[0]
        number = 1
        while place in taken:
            number += 1
            place = f"{stem}_{number}"
        taken.add(place)
        names[one.path] = place
    return names
