"""Reads and applies a list of training images to exclude, such as suspected label errors."""

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
    """The IDs in a file."""

    path: str
    rows: dict[str, int]  # row number (from 1) of the first occurrence of each ID
    digest: str  # hexadecimal SHA-256 of the file


def read(path: os.PathLike | str) -> ExcludeList:
    """Reads a CSV file with a column `id`, or a text file with one ID per line.

    Skips empty lines; IDs may repeat. Files that end in .gz are decompressed.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file has no ID, is not text, or a CSV row has no ID; the message names file and row.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}: config.data.drop_ids takes a text file with one id per line, or a CSV "
            "file with a column id, such as from fer-jax label-errors"
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
        raise ValueError(f"{path} has no id: set config.data.drop_ids='' to exclude no image")
    with open(path, "rb") as file:
        return ExcludeList(str(path), rows, hashlib.file_digest(file, "sha256").hexdigest())


def exclude(faces: Faces, listed: ExcludeList) -> Faces:
    """Returns the faces that are not listed, in their order.

    Raises:
      ValueError: an ID is unknown (the message names file and row), or no face remains.
    """
    known = set(faces.ids)
    for name, row in listed.rows.items():
        if name not in known:
            raise ValueError(
                f"{listed.path}, row {row}: no training image has the id {name!r} (the first one's is "
                f"{faces.ids[0]!r}); expected one id per line, or a CSV file with a column "
                f"{COLUMN}, made from the same dataset"
            )
    kept = faces.take(np.flatnonzero([name not in listed.rows for name in faces.ids]))
    if not len(kept):
        raise ValueError(f"{listed.path} lists all {len(faces)} training images: none remains")
    return kept
