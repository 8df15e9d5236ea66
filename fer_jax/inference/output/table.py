"""Writes predictions to tables: a row per face, per frame without a face, and per unreadable file."""

import collections
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax import io_utils
from fer_jax.inference.structures import DetectedFrame, Face, Track

FACE, NO_FACE, ERROR = "face", "no_face", "error"
ENDINGS = (".csv", ".jsonl")
Row = dict[str, Any]


class TableError(ValueError):
    """A table that cannot be started or resumed."""


def columns(emotions: Sequence[str]) -> list[str]:
    """Returns the column names of a CSV file."""
    place = "source frame seconds status face track left top width height detection_score".split()
    answer = "emotion confidence unsure smoothed_emotion smoothed_confidence".split()
    return [*place, *answer, *(f"p_{name}" for name in emotions), "error"]


def rows(frame: DetectedFrame, faces: Sequence[Face] = (), tracks: Sequence[Track] = ()) -> list[Row]:
    """Returns the rows of a frame or of the error of a file, without empty columns; [] for the end of a file.

    Faces are numbered from 1, as in annotated copies; in a video they have tracks.
    """
    seconds = None if frame.seconds is None else round(frame.seconds, 3)
    place = {"source": frame.source, "frame": frame.frame, "seconds": seconds}
    place = {name: value for name, value in place.items() if value is not None}
    if frame.error is not None:
        return [place | {"status": ERROR, "error": frame.error}]
    if not faces:
        return [] if frame.size is None else [place | {"status": NO_FACE}]
    found = [place | {"status": FACE, "face": i} | _answer(face) for i, face in enumerate(faces, 1)]
    for row, face, track in zip(found, faces, tracks, strict=True) if tracks else ():
        smooth = track.smooth(face)
        row |= {"track": track.number, "smoothed_emotion": smooth.emotion}
        row["smoothed_confidence"] = round(smooth.confidence, 6)
    return found


def _answer(face: Face) -> Row:
    found = face.to_dict()
    probabilities = {f"p_{name}": p for name, p in found.pop("probabilities").items()}
    return found.pop("box") | found | probabilities


def csv_line(values: Iterable[Any]) -> bytes:
    """Returns a line of a CSV file in UTF-8; None is an empty field."""
    text = io.StringIO()
    csv.writer(text).writerow(values)  # the terminator "\r\n" makes it quote fields with either character
    return text.getvalue().removesuffix("\r\n").encode(errors="surrogateescape") + b"\n"


def to_csv(found: Sequence[Mapping[str, Any]], emotions: Sequence[str]) -> bytes:
    """Returns rows as a CSV file, without empty columns."""
    used = [name for name in columns(emotions) if any(name in row for row in found)]
    return csv_line(used) + b"".join(csv_line(row.get(name) for name in used) for row in found)


class Table:
    """A table that an interrupted run can resume.

    Until `finish`, FILE.state stores the progress up to the last `mark`. An interrupted run may leave later
    rows, which `resume` removes.

    Attributes:
      path: path of the file.
      rows: number of rows when started or resumed.
    """

    def __init__(self, path: os.PathLike | str, emotions: Sequence[str], made_by: dict[str, Any]):
        """Prepares a table, which `start` or `resume` opens.

        The rows depend on the settings `made_by`, JSON types, which must be equal when resuming.

        Raises:
          TableError: the path does not end in .csv or .jsonl.
        """
        self.path, self._columns, self._made_by = Path(path), columns(emotions), made_by
        if self.path.suffix not in ENDINGS:
            raise TableError(f"--out {path}: expected a file ending in {' or '.join(ENDINGS)}")
        self._is_csv = self.path.suffix == ".csv"
        self._state = self.path.with_name(self.path.name + ".state")
        # Bytes on disk, and the resumable bytes on disk and in the buffer.
        self._written = self._complete = self.rows = 0
        self._waiting: list[bytes] = []
        self._position: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether the file exists and is complete, so that its settings are unknown."""
        return self.path.exists() and not self._state.exists()

    def start(self) -> None:
        """Creates a new file.

        Raises:
          TableError: the file exists.
          OSError: the file cannot be written.
        """
        if self.path.exists():
            raise TableError(
                f"{self.path} exists: add --resume to continue it, choose another file, or remove it"
            )
        with io_utils.named_by("--out", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            if self._is_csv:
                self._waiting.append(csv_line(self._columns))
            self.write([])
            try:
                self.mark()
            except OSError:  # a file without its state would block the next start
                self.path.unlink()
                raise

    def resume(self) -> tuple[set[str], dict[str, Any] | None]:
        """Continues an interrupted file, or creates a new one.

        Returns:
          The finished sources, and the last position from `write`.

        Raises:
          TableError: the table has other settings, was modified, or is not such a table.
          OSError: the file cannot be written.
        """
        if not self.path.exists():
            self.start()
            return set(), None
        if self.finished:
            self._written = self._complete = self.path.stat().st_size
        else:
            self._resume_from_state()
        sources = collections.Counter(self._sources())
        self.rows = sources.total()
        return set(sources) - ({self._position["source"]} if self._position else set()), self._position

    def _resume_from_state(self) -> None:
        try:
            state = io_utils.read_json(self._state)
            complete, self._position, made_by = state["bytes"], state["going_on"], state["made_by"]
        except (OSError, ValueError) as error:
            raise TableError(
                f"{self._state} cannot be read ({error}): {self.path} cannot be resumed without it"
            ) from error
        if made_by != self._made_by:
            new = self._made_by
            names = [name for name in made_by | new if made_by.get(name) != new.get(name)]
            was, now = (", ".join(f"{name} {by.get(name)}" for name in names) for by in (made_by, new))
            raise TableError(f"{self.path} was made with {was}; now it is {now}: choose another file")
        if self.path.stat().st_size < complete:
            raise TableError(f"{self.path} was modified, and cannot be resumed")
        with io_utils.named_by("--out", self.path):
            os.truncate(self.path, complete)
        self._written = self._complete = complete

    def write(
        self, new: Iterable[Row], position: dict[str, Any] | None = None, resumable: bool = True
    ) -> None:
        """Buffers rows for the next `mark`.

        Args:
          new: the rows.
          position: state for resuming after them within a file, including its 'source'; None between files.
          resumable: whether a run can resume after them; otherwise they are computed again.
        """
        for row in new:
            ordered = {name: row.get(name) for name in self._columns}
            if self._is_csv:
                self._waiting.append(csv_line(ordered.values()))
            else:
                line = json.dumps(ordered, ensure_ascii=False) + "\n"
                self._waiting.append(line.encode(errors="surrogateescape"))
        if resumable:
            self._complete, self._position = self._written + sum(map(len, self._waiting)), position

    def mark(self) -> None:
        """Writes the buffered rows and the progress.

        Raises:
          OSError: the file cannot be written; earlier marks remain.
        """
        lines = b"".join(self._waiting)
        with open(self.path, "r+b") as file:
            file.seek(self._written)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._written += len(lines)
        self._waiting.clear()
        state = {"bytes": self._complete, "going_on": self._position, "made_by": self._made_by}
        io_utils.write_atomically(self._state, json.dumps(state).encode())

    def finish(self) -> None:
        """Writes the buffered rows and removes the state file."""
        self.mark()
        self._state.unlink()

    def _sources(self) -> Iterator[str]:
        options: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        try:
            with open(self.path, **options) as file:
                lines: Any = csv.DictReader(file, strict=True) if self._is_csv else map(json.loads, file)
                if self._is_csv and lines.fieldnames != self._columns:
                    raise KeyError(f"its columns are {lines.fieldnames}")
                for line in lines:
                    yield line["source"]
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise TableError(
                f"{self.path} is no table of fer-jax predict for this model's emotions: choose another file"
            ) from error
