"""Reads a list of training images to exclude, such as suspected label errors, and applies it."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np

from fer_jax import tables
from fer_jax.data.csv_file import open_csv
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

    Empty lines are skipped, and an id may occur twice. A name that ends in .gz is of a compressed file.

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
    table = open_csv(path)
    rows: dict[str, int] = {}
    if COLUMN in table.header:
        column = table.header.index(COLUMN)
        for number, row in table.rows():
            name = row[column].strip() if column < len(row) else ""
            if not name:
                where = f"column {column + 1}, the one named {COLUMN}"
                raise ValueError(f"{path}, row {number}: no id in {where}; got {row}")
            rows.setdefault(tables.csv_value(name), number)
    else:
        with table.text() as lines:
            for number, line in enumerate(lines, 1):
                if name := line.strip():
                    rows.setdefault(name, number)
    if not rows:
        raise ValueError(f"{path} names no id: set config.data.drop_ids='' to exclude no image")
    with open(path, "rb") as file:
        return ExcludeList(str(path), rows, hashlib.file_digest(file, "sha256").hexdigest())


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
