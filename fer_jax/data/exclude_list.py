"""Reads a list of training images to exclude, such as suspected label errors, and applies it."""

import csv
import dataclasses
import hashlib
import io
import os
import pathlib

import numpy as np

from fer_jax import tables
from fer_jax.data.csv_file import find_delimiter, find_encoding
from fer_jax.data.faces import Faces

COLUMN = "id"


@dataclasses.dataclass(frozen=True)
class ExcludeList:
    """The ids in a file.

    Attributes:
      path: of the file.
      rows: the number of the row (from 1) in which each id first stands.
      digest: SHA-256 of the file's bytes, hexadecimal.
    """

    path: str
    rows: dict[str, int]
    digest: str


def read(path: os.PathLike | str) -> ExcludeList:
    """Reads a CSV whose header names a column `id`, or, without such a header, a text with one id per line.

    Empty lines are skipped, and an id may occur twice.

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
        text = content.decode(find_encoding(content))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}): save the list of ids as plain text") from None
    first_line = next(io.StringIO(text, newline=None), "")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(first_line))
    header = [name.strip() for name in next(lines, [])]
    rows: dict[str, int] = {}
    if COLUMN in header:
        column = header.index(COLUMN)
        for line in filter(None, lines):
            name = line[column].strip() if column < len(line) else ""
            if not name:
                where = f"column {column + 1}, the one named {COLUMN}"
                raise ValueError(f"{path}, row {lines.line_num}: no id in {where}; got {line}")
            rows.setdefault(tables.csv_value(name), lines.line_num)
    else:
        for number, line in enumerate(io.StringIO(text, newline=None), 1):
            if name := line.strip():
                rows.setdefault(name, number)
    if not rows:
        raise ValueError(f"{path} names no id: set config.data.drop_ids='' to exclude no image")
    return ExcludeList(str(path), rows, hashlib.sha256(content).hexdigest())


def exclude(faces: Faces, listed: ExcludeList) -> Faces:
    """Returns the faces that are not listed, in their order.

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
