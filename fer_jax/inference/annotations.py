"""Copies of pictures and videos with what was found drawn in."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fer_jax import files
from fer_jax.inference import drawing, video
from fer_jax.inference.inputs import Input
from fer_jax.inference.looking import Seen
from fer_jax.inference.results import Face
from fer_jax.inference.tracking import Track


class Annotations:
    """A folder of annotated copies, a file at a time.

    A context manager; the copy of a video that is not whole when it is left does not appear.
    """

    def __init__(self, folder: Path):
        """Names the folder, which is there."""
        self._folder = folder
        self._places: dict[str, str] = {}
        self._writer = contextlib.ExitStack()
        self._video: video.Writer | None = None

    def add(self, seen: Seen, faces: Sequence[Face], tracks: Sequence[Track]) -> None:
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
        path = path.with_name(path.name + ".jpg")
        Image.fromarray(drawn).save(files.partial(path), "JPEG", quality=92)
        os.replace(files.partial(path), path)

    def _place(self, source: Input) -> Path:
        """Where the copy goes, without its ending: as the original lies below the folder that was named."""
        stem = os.path.splitext(source.name)[0]
        place, number = stem, 1
        while self._places.setdefault(place, source.path) != source.path:
            number += 1
            place = f"{stem}_{number}"
        path = self._folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
