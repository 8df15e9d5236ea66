"""Predictions as a table: a row for a face, for a picture without one, for a file that cannot be read."""

import collections
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fer_jax import io_utils
from fer_jax.inference.media.stream import DetectedFrame
from fer_jax.inference.media.tracking import Track
from fer_jax.inference.structures import Face

FACE, NO_FACE, ERROR = "face", "no_face", "error"
ENDINGS = (".csv", ".jsonl")


class TableError(ValueError):
    """A table that cannot be written to, or not be gone on with."""


def columns(emotions: Sequence[str]) -> list[str]:
    """The names of the columns, of a CSV file in this order."""
    place = "source frame seconds status face track left top width height detection_score".split()
    answer = "emotion confidence unsure smoothed_emotion smoothed_confidence".split()
    return [*place, *answer, *(f"p_{name}" for name in emotions), "error"]


def rows(seen: DetectedFrame, faces: Sequence[Face], tracks: Sequence[Track]) -> list[dict[str, Any]]:
    """What a table says of a picture; nothing of a file's mere end.

    Args:
      seen: the picture, or what went wrong with it.
      faces: in it.
      tracks: of its faces where it is a frame, else none.
    """
    place = {"source": seen.source.path, "frame": seen.frame}
    place["seconds"] = None if seen.seconds is None else round(seen.seconds, 3)
    if seen.error is not None:
        return [error_row(place, seen.error)]
    return [] if seen.size is None else face_rows(place, faces, tracks)


def error_row(place: dict[str, Any], error: str) -> dict[str, Any]:
    """The row of a file that cannot be read; `place` has its 'source'."""
    return place | {"status": ERROR, "error": error}


def face_rows(
    place: dict[str, Any], faces: Sequence[Face], tracks: Sequence[Track] = ()
) -> list[dict[str, Any]]:
    """A row for each face, counted from 1 as in annotated copies, or the one that says that there is none.

    Args:
      place: 'source' and, of a frame, 'seconds' and the like.
      faces: in the picture.
      tracks: of the faces, else none.
    """
    if not faces:
        return [place | {"status": NO_FACE}]
    found = [place | {"status": FACE, "face": i} | _answer(face) for i, face in enumerate(faces, 1)]
    for row, track, face in zip(found, tracks, faces, strict=True) if tracks else ():
        row["track"] = track.number
        row["smoothed_emotion"] = face.emotions[int(track.probabilities.argmax())]
        row["smoothed_confidence"] = round(float(track.probabilities.max()), 6)
    return found


def _answer(face: Face) -> dict[str, Any]:
    as_json = face.to_dict()
    probabilities = {f"p_{name}": p for name, p in as_json["probabilities"].items()}
    kept = ("detection_score", "emotion", "confidence", "unsure")
    return as_json["box"] | {name: as_json[name] for name in kept} | probabilities


class Table:
    """A file of rows, and beside it how far it is whole, so that a run that was stopped can go on.

    A run that is stopped in any way leaves the rows of the last `mark`, and perhaps some that came after it,
    which `resume` cuts off.

    Attributes:
      path: of the file.
      rows: that it had when it was begun or gone on with.
    """

    def __init__(self, path: os.PathLike | str, emotions: Sequence[str], made_by: dict[str, Any]):
        """Names the file; `start` or `resume` begins to write.

        Args:
          path: ending in .csv or .jsonl.
          emotions: of the rows.
          made_by: what the rows depend on, as JSON has it: rows of another make are not added.

        Raises:
          TableError: another ending.
        """
        self.path, self._columns, self._made_by = Path(path), columns(emotions), made_by
        if self.path.suffix not in ENDINGS:
            raise TableError(f"--out {path}: expected a file ending in {' or '.join(ENDINGS)}")
        self._state = self.path.with_name(self.path.name + ".state")
        # Bytes on the disk, and so many of them (and of what waits) that a run can go on after.
        self._written = self._whole = self.rows = 0
        self._waiting: list[bytes] = []
        self._going_on: dict[str, Any] | None = None

    def start(self) -> None:
        """Begins a new file.

        Raises:
          TableError: there is one already.
          OSError: it cannot be written.
        """
        if self.path.exists():
            raise TableError(
                f"{self.path} exists: go on with it by --resume, or name another file, or remove it"
            )
        with io_utils.named_by("--out", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            if self.path.suffix == ".csv":
                self._waiting.append(self._csv_line(self._columns))
            self._note(None)
            try:
                self.mark()
            except OSError:  # without its state the file would be in the way of the next start
                self.path.unlink()
                raise

    def resume(self) -> tuple[set[str], dict[str, Any] | None]:
        """Begins where the file was left, or a new one where there is none.

        Returns:
          The sources that are done, and what `write` was given with the last of the rows.

        Raises:
          TableError: it was made otherwise or changed since, or nothing is known about how it was made.
          OSError: it cannot be written.
        """
        if not self.path.exists():
            self.start()
            return set(), None
        try:
            state = json.loads(self._state.read_text())
            whole, self._going_on, made_by = state["bytes"], state["going_on"], state["made_by"]
        except (OSError, ValueError, KeyError) as error:
            raise TableError(
                f"{self._state} cannot be read ({error}): without it {self.path} cannot be gone on with"
            ) from error
        if made_by != self._made_by:
            names = [name for name in self._made_by if made_by.get(name) != self._made_by[name]]
            was = ", ".join(f"{name} {made_by.get(name)}" for name in names)
            now = ", ".join(f"{name} {self._made_by[name]}" for name in names)
            raise TableError(f"{self.path} was made with {was}; now it is {now}: name another file")
        if self.path.stat().st_size < whole:
            raise TableError(f"{self.path} was changed since it was written: it cannot be gone on with")
        with io_utils.named_by("--out", self.path):
            os.truncate(self.path, whole)
        self._written = self._whole = whole
        sources = collections.Counter(self._sources())
        self.rows = sources.total()
        done = set(sources) - ({self._going_on["source"]} if self._going_on else set())
        return done, self._going_on

    def write(
        self, new: Sequence[dict[str, Any]], going_on: dict[str, Any] | None = None, whole: bool = True
    ) -> None:
        """Adds rows, which the next `mark` writes.

        Args:
          new: the rows.
          going_on: what is needed to go on after them in the middle of a file, with its 'source'; None
            between files.
          whole: whether a run can go on after them; otherwise they are made again, with those before them
            back to the last that were.
        """
        for row in new:
            if self.path.suffix == ".csv":
                self._waiting.append(self._csv_line([row.get(name) for name in self._columns]))
            else:
                ordered = {name: row.get(name) for name in self._columns}
                line = json.dumps(ordered, ensure_ascii=False) + "\n"
                self._waiting.append(line.encode(errors="surrogateescape"))
        if whole:
            self._note(going_on)

    def _note(self, going_on: dict[str, Any] | None) -> None:
        self._whole, self._going_on = self._written + sum(map(len, self._waiting)), going_on

    def mark(self) -> None:
        """Writes what waits, and notes how far the file is whole.

        Raises:
          OSError: it cannot be written; what was marked before stays.
        """
        lines = b"".join(self._waiting)
        with open(self.path, "r+b") as file:
            file.seek(self._written)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._written += len(lines)
        self._waiting.clear()
        state = {"bytes": self._whole, "going_on": self._going_on, "made_by": self._made_by}
        io_utils.write_atomically(self._state, json.dumps(state).encode())

    def _sources(self) -> Iterator[str]:
        options = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        with open(self.path, **options) as file:
            lines = csv.DictReader(file) if self.path.suffix == ".csv" else map(json.loads, file)
            for line in lines:
                yield line["source"]

    def _csv_line(self, values: Sequence[Any]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
        return text.getvalue().encode(errors="surrogateescape")
