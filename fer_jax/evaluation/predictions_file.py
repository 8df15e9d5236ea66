"""Predictions as a file: CSV, one row an image, from which all figures follow; compressed if it ends "
"in .gz."""

import contextlib
import csv
import dataclasses
import gzip
import math
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import TextIO

import numpy as np

from fer_jax import tables
from fer_jax.data.emotions import CONTEMPT, UnknownEmotionError, canonical
from fer_jax.evaluation import leakage
from fer_jax.evaluation.metrics import classification
from fer_jax.io_utils import write_atomically

_COLUMNS = ("id", "label", "prediction", "group", "copy")  # the others are classes
ROUNDED = 0.05  # of the sum of a row: two decimals of eight classes are up to 0.04 off


@dataclasses.dataclass
class Predictions:
    """What a model says of the images of a split.

    Attributes:
      ids: N names, unique.
      probs: float64 [N, K], rows that sum to 1.
      labels: int64 [N] in [0, K), or None where the file has none.
      names: of the K classes.
      groups: int64 [N], one number for identical images, or None where it is not known.
      copies: int8 [N], places in `leakage.KINDS`, or None where it is not known.
    """

    ids: list[str]
    probs: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    groups: np.ndarray | None = None
    copies: np.ndarray | None = None


def write(path: pathlib.Path, predictions: Predictions, *, digits: int | None = None) -> None:
    """Writes id, label, prediction, the probabilities, group and copy.

    What is not known is left empty. 'copy' is one of `leakage.KINDS`. The same predictions give the same
    bytes.

    Args:
      path: of the file.
      predictions: what to write.
      digits: significant ones of the probabilities; None writes them in full.
    """
    count, found = len(predictions.ids), predictions
    labels, groups = ([""] * count if v is None else v.tolist() for v in (found.labels, found.groups))
    kinds = [""] * count if found.copies is None else [leakage.KINDS[kind] for kind in found.copies]
    rows = [["id", "label", "prediction", *found.names, "group", "copy"]]
    for name, label, row, group, kind in zip(
        found.ids, labels, found.probs.tolist(), groups, kinds, strict=True
    ):
        numbers = map(repr, row) if digits is None else (f"{value:.{digits}g}" for value in row)
        rows.append([name, label, row.index(max(row)), *numbers, group, kind])
    content = tables.csv_text(rows).encode()
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def columns(path: os.PathLike | str) -> list[str]:
    """The names of a file's columns, none of an empty file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no text.
    """
    with _open(path) as file:
        return _header(csv.reader(file), path)


@contextlib.contextmanager
def _open(path: os.PathLike | str) -> Iterator[TextIO]:
    opened = gzip.open if str(path).endswith(".gz") else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            yield file
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as {'compressed ' * (opened != open)}text: {error}"
        ) from None


def read(path: os.PathLike | str, names: Sequence[str] | None = None) -> Predictions:
    """Reads what `write` has written, or another program: a column id and one for each class.

    Args:
      path: of the file. Classes go by any of their usual names (anger, Happiness); rows that are rounded,
        whose sum is up to `ROUNDED` off 1, are renormalised. Columns `label` (a class's number or name),
        `group` and `copy` are read where they are there and filled in every row.
      names: the classes to expect, in the order of the result; all other columns of the file's, in
        their order, if None.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it lacks a column, an id comes twice or a row cannot be read (the message names file
        and row), or as `classification.check`.
    """
    with _open(path) as file:
        reader = csv.reader(file)
        fields = _header(reader, path)
        lines = csv.DictReader(file, fields)
        names = list(names or [name for name in fields if name not in _COLUMNS])
        if missing := [name for name in ("id", *names) if name not in fields]:
            raise ValueError(
                f"{path} lacks the columns {', '.join(missing)}; expected id and one column of probabilities "
                f"for each of {', '.join(names) or 'the classes'}"
            )
        rows, found = [], {}
        for line in lines:
            row = _row(line, names, f"{path}, row {lines.line_num + 1}")  # the header is row 1
            if row[0] in found:
                raise ValueError(
                    f"{path}, row {lines.line_num + 1}: the id {row[0]!r} was in row {found[row[0]]} already"
                )
            found[row[0]] = lines.line_num + 1
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows below its header: expected one for each image")
    ids, probs, *others = zip(*rows, strict=True)
    labels, groups, copies = (None if None in values or not values else values for values in others)
    result = Predictions(
        list(ids),
        np.array(probs, np.float64).reshape(-1, len(names)),
        None if labels is None else np.array(labels, np.int64),
        names,
        None if groups is None else np.array(groups, np.int64),
        None if copies is None else np.array(copies, np.int8),
    )
    try:
        known = np.zeros(len(ids), np.int64) if labels is None else result.labels
        classification.check(result.probs, known)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return result


def _header(lines: Iterator[list[str]], path: os.PathLike | str) -> list[str]:
    """The columns in a file's first row, by the names that they have here.

    Raises:
      ValueError: there is none, or two are the same.
    """
    header = next(lines, None)
    if not header:
        raise ValueError(f"{path} is empty: expected a header with id and the classes")
    found = [_column(name) for name in header]
    if again := [name for name in found if found.count(name) > 1]:
        raise ValueError(f"{path} has two columns {again[0]}: {', '.join(header)}")
    return found


def _column(name: str) -> str:
    """A column's name: case does not matter, and a class goes by any of its usual names."""
    plain = name.strip().casefold()
    if plain in (*_COLUMNS, CONTEMPT):
        return plain
    try:
        return canonical(name)
    except UnknownEmotionError:
        return name


def _distribution(values: list[float], where: str) -> list[float]:
    """Probabilities that sum to 1, also of such as are rounded to two decimals."""
    total = sum(values)
    if min(values) >= 0 and abs(total - 1) <= ROUNDED:
        return values if abs(total - 1) <= 1e-4 else [value / total for value in values]
    if not math.isfinite(total):
        reason = "not all are numbers"
    elif min(values) < 0:
        reason = "one is negative; if they are logits, take their softmax"
    elif abs(total - 100) <= 100 * ROUNDED:
        reason = "they sum to 100; if they are percentages, divide them"
    else:
        reason = f"they sum to {total:.4g}, expected 1 to within {ROUNDED}"
    raise ValueError(f"{where}: {values} is no probability distribution: {reason}")


def _row(line: dict[str, str], names: list[str], where: str) -> tuple:
    """(id, probabilities, label, group, copy) of a line, None for what is empty or not there."""
    try:
        probs = [float(line[name]) for name in names]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected a probability for each of {', '.join(names)} ({error})"
        ) from None
    probs = _distribution(probs, f"{where}, {line['id']}")
    label, group, copy = (line.get(name) or None for name in ("label", "group", "copy"))
    if label is not None:
        if label in names:
            label = names.index(label)
        elif label.isascii() and label.isdigit() and int(label) < len(names):
            label = int(label)
        else:
            raise ValueError(
                f"{where}: the label is {label!r}, expected a number from 0 to {len(names) - 1} or one of "
                f"{', '.join(names)}"
            )
    if copy is not None and copy not in leakage.KINDS:
        raise ValueError(f"{where}: copy is {copy!r}, expected one of {', '.join(leakage.KINDS)}")
    if group is not None and not group.isdigit():
        raise ValueError(f"{where}: group is {group!r}, expected a number")
    return (
        tables.csv_value(line["id"]),
        probs,
        label,
        None if group is None else int(group),
        None if copy is None else leakage.KINDS.index(copy),
    )
