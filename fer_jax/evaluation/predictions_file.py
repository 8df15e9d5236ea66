"""Reads and writes predictions as CSV, one row per image; gzip-compressed if the name ends in .gz."""

import dataclasses
import gzip
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import tables
from fer_jax.data.csv_file import CsvFile, open_csv
from fer_jax.data.emotions import CONTEMPT, EMOTIONS, UnknownEmotionError, canonical
from fer_jax.evaluation import leakage
from fer_jax.evaluation.metrics import classification
from fer_jax.io_utils import write_atomically

_COLUMNS = ("id", "label", "prediction", "group", "copy")  # other columns are classes
MOST_COLUMNS = 1000
ROUNDED = 0.05  # tolerance of row sums: eight probabilities with two decimals are off by up to 0.04


@dataclasses.dataclass
class Predictions:
    """A model's predictions for the images of a split."""

    ids: list[str]  # N unique image IDs
    probs: np.ndarray  # float64 [N, K], rows that sum to 1
    labels: Any  # int64 [N] in [0, K), or None if unknown
    names: list[str]  # names of the K classes
    groups: np.ndarray | None = None  # int64 [N], equal for identical images, or None if unknown
    copies: np.ndarray | None = None  # int8 [N], indices into `leakage.KINDS`, or None if unknown


def write(path: pathlib.Path, predictions: Predictions, *, digits: int | None = None) -> None:
    """Writes id, label, prediction, probabilities, group and copy (one of `leakage.KINDS`).

    Unknown values are empty. Equal predictions give identical files. Probabilities have `digits` significant
    digits or, with None, are exact.
    """
    p = predictions
    copies = None if p.copies is None else [leakage.KINDS[kind] for kind in p.copies]
    optional = ([""] * len(p.ids) if v is None else v for v in (p.labels, p.groups, copies))
    number = repr if digits is None else f"{{:.{digits}g}}".format
    rows = [["id", "label", "prediction", *p.names, "group", "copy"]]
    for name, row, label, group, kind in zip(p.ids, p.probs, *optional, strict=True):
        rows.append([name, label, row.argmax(), *map(number, row.tolist()), group, kind])
    content = tables.csv_text(rows).encode()
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def columns(path: os.PathLike | str) -> list[str]:
    """Returns the names of a file's columns.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is empty or not text, or has duplicate columns.
    """
    return _open(path)[1]


def _open(path: os.PathLike | str) -> tuple[CsvFile, list[str]]:
    """Opens a file; returns it and its canonical column names."""
    table = open_csv(path)
    if not table.names:
        raise ValueError(f"{path} is empty: expected a header with id and classes")
    if len(table.names) > MOST_COLUMNS:
        raise ValueError(f"{path} has over {MOST_COLUMNS:,} columns; expected id and one for each class")
    found = [_column(name) for name in table.names]
    if again := [name for name in found if found.count(name) > 1]:
        raise ValueError(f"{path} has duplicate columns {again[0]}: {', '.join(table.names)}")
    return table, found


def _column(name: str) -> str:
    """Returns the canonical name of a column: casefolded, with class variants resolved."""
    plain = name.strip().casefold()
    if plain in (*_COLUMNS, CONTEMPT):
        return plain
    try:
        return canonical(name)
    except UnknownEmotionError:
        return name


def read(path: os.PathLike | str, names: Sequence[str] | None = None) -> Predictions:
    """Reads a file from `write` or another program, with a column id and one for each class.

    Accepts variants of class names (anger, Happiness). Renormalizes rounded probabilities, with sums within
    `ROUNDED` of 1. Reads the columns `label` (class number or name), `group`, and `copy` if every row has a
    value.

    Args:
      path: the file.
      names: expected classes, in the order of the result; None for all classes in the file.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file lacks a column, repeats an ID, or has a bad row (the message names file and row),
        or as `classification.check`.
    """
    table, fields = _open(path)
    names = list(names or [name for name in fields if name not in _COLUMNS] or EMOTIONS)
    if missing := [name for name in ("id", *names) if name not in fields]:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)}; expected id and one column of probabilities "
            f"for each of {', '.join(names)}"
        )
    rows: list[tuple] = []
    places: dict[str, int] = {}
    for number, row in table.rows():
        where, line = f"{path}, row {number}", dict(zip(fields, row, strict=False))
        try:
            rows.append(_row(line, names))
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None
        name = tables.csv_value(line["id"])
        if name in places:
            raise ValueError(f"{where}: the id {name!r} is already in row {places[name]}")
        places[name] = number
    if not rows:
        raise ValueError(f"{path} has no rows below the header: expected one for each image")
    probs, *others = zip(*rows, strict=True)
    labels, groups, copies = (
        None if None in values else np.array(values, dtype)
        for values, dtype in zip(others, (np.int64, np.int64, np.int8), strict=True)
    )
    result = Predictions(list(places), np.array(probs, np.float64), labels, names, groups, copies)
    try:
        classification.check(result.probs, np.zeros(len(rows), np.int64) if labels is None else labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return result


def _row(line: dict[str, str], names: list[str]) -> tuple[list[float], int | None, int | None, int | None]:
    """Returns (probabilities, label, group, copy) of a row, None for empty or missing values.

    Raises:
      ValueError: a value is bad; the message starts after the row number.
    """
    if missing := [name for name in ("id", *names) if name not in line]:
        raise ValueError(
            f": expected id and a probability for each of {', '.join(names)}; it ends before {missing[0]}"
        )
    try:
        probs = [float(line[name]) for name in names]
    except ValueError as error:
        raise ValueError(f": expected a probability for each of {', '.join(names)} ({error})") from None
    label, group, copy = (line.get(name) or None for name in ("label", "group", "copy"))
    if label in names:
        label = names.index(label)
    elif label is not None and not (label.isascii() and label.isdigit() and int(label[:9]) < len(names)):
        raise ValueError(
            f": the label is {label[:40]!r}, expected a number from 0 to {len(names) - 1} or one of "
            f"{', '.join(names)}"
        )
    if copy not in (None, *leakage.KINDS):
        raise ValueError(f": copy is {copy!r}, expected one of {', '.join(leakage.KINDS)}")
    if group is not None and not (group.isdecimal() and len(group) < 19):
        raise ValueError(f": group is {group[:40]!r}, expected a number below 10**18")
    return (
        _normalized(probs, line["id"]),
        None if label is None else int(label),
        None if group is None else int(group),
        None if copy is None else leakage.KINDS.index(copy),
    )


def _normalized(values: list[float], name: str) -> list[float]:
    """Returns probabilities that sum to 1; renormalizes rounded ones."""
    total = sum(values)
    if min(values) >= 0 and abs(total - 1) <= ROUNDED:
        return values if abs(total - 1) <= 1e-4 else [value / total for value in values]
    if not math.isfinite(total):
        reason = "not all values are numbers"
    elif min(values) < 0:
        reason = "a value is negative; apply the softmax to logits"
    elif abs(total - 100) <= 100 * ROUNDED:
        reason = "they sum to 100; divide percentages by 100"
    else:
        reason = f"they sum to {total:.4g}, expected 1 to within {ROUNDED}"
    raise ValueError(f", {name}: {values} is not a probability distribution: {reason}")
