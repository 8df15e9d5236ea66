"""A file of ids of training images that are left out, such as suspected label errors."""

import csv
import dataclasses
import hashlib
import io
import os
import pathlib

import numpy as np

from fer_jax import tables
from fer_jax.data.faces import Faces

COLUMN = "id"


@dataclasses.dataclass(frozen=True)
class ExcludeList:
    """The ids in a file.

    Attributes:
      path: of the file.
      rows: the number of the row (from 1) where each id stands first.
      digest: SHA-256 of the file's bytes, hexadecimal.
    """

    path: str
    rows: dict[str, int]
    digest: str


def read(path: os.PathLike | str) -> ExcludeList:
    """Reads a CSV whose header names a column `id`, or, without such a header, a text with one id a line.

    Empty lines are skipped, and an id may stand there twice.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it names no id, is no text, or a row of the CSV has none; the message names file and row.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}: config.data.drop_ids takes a text with one id a line or a CSV with a "
            "column id, such as fer-jax label-errors writes"
        )
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}): save the list of ids as plain text") from None
    lines = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(lines, [])]
    if COLUMN in header:
        column = header.index(COLUMN)
        entries = [(lines.line_num, _cell(path, lines.line_num, line, column)) for line in lines if line]
    else:
        entries = [(row, line.strip()) for row, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not entries:
        raise ValueError(f"{path} names no id: set config.data.drop_ids='' to leave out no image")
    rows: dict[str, int] = {}
    for row, name in entries:
        rows.setdefault(name, row)
    return ExcludeList(str(path), rows, hashlib.sha256(content).hexdigest())


def _cell(path: pathlib.Path, row: int, line: list[str], column: int) -> str:
    name = line[column].strip() if column < len(line) else ""
    if not name:
        where = f"column {column + 1}, the one named {COLUMN}"
        raise ValueError(f"{path}, row {row}: no id in {where}; got {line}")
    return tables.csv_value(name)


def exclude(faces: Faces, listed: ExcludeList) -> Faces:
    """The faces that are not listed, in their order.

    Raises:
      ValueError: an id is none of the faces' (the message names file and row), or no face remains.
    """
    known = set(faces.ids)
    for name, row in listed.rows.items():
        if name not in known:
            raise ValueError(
                f"{listed.path}, row {row}: no training image has the id {name!r} (the first one's is "
                f"{faces.ids[0]!r}); expected one id a line, or a CSV whose header names a column "
                f"{COLUMN}, made from the same dataset"
            )
    kept = faces.take(np.flatnonzero([name not in listed.rows for name in faces.ids]))
    if not len(kept):
        raise ValueError(f"{listed.path} lists all {len(faces)} training images: none is left to train on")
    return kept
