"""Computes metrics for subgroups of a split, by attributes of its images."""

import itertools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fer_jax import tables
from fer_jax.data.csv_file import open_csv
from fer_jax.evaluation.metrics import bootstrap, calibration, classification

# Resampled metrics, in the order of tables and figures.
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "ece": "calibration error",
}
# Without the calibration error, which depends on the number of images.
GAPS = ("accuracy", "balanced_accuracy", "macro_f1")
MIN_IMAGES = 30  # minimum group size for gaps, to limit gaps by chance
MAX_GROUPS = 50  # attributes with more values are not categorical


class Table(NamedTuple):
    """Attributes of images."""

    path: str  # the file, for messages
    attributes: tuple[str, ...]  # names of the columns except 'id'
    values: dict[str, tuple[str, ...]]  # by ID, in the order of `attributes`, '' if missing


def read_table(path: os.PathLike | str) -> Table:
    """Reads a CSV file with a column 'id' and categorical columns.

    Raises:
      OSError: the file cannot be read.
      ValueError: the table is invalid; the message names the file and the row.
    """
    file = open_csv(path)
    header = file.names
    found = ", ".join(map(repr, header)) or "nothing"
    if header.count("id") != 1:
        raise ValueError(f"{path}, row 1: expected one column 'id', found {found}")
    if len(header) < 2 or len(set(header)) < len(header) or "" in header:
        raise ValueError(
            f"{path}, row 1: expected the column 'id' and attribute columns with unique names, found {found}"
        )
    place, values, places = header.index("id"), {}, {}
    for number, row in file.rows():
        cells = [cell.strip() for cell in row]
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, row {number}: {len(cells)} cells, expected {len(header)} ({', '.join(header)})"
            )
        name = tables.csv_value(cells.pop(place))
        if name in values:
            raise ValueError(f"{path}, row {number}: the id {name!r} is already in row {places[name]}")
        values[name], places[name] = tuple(cells), number
    return Table(str(path), tuple(name for name in header if name != "id"), values)


def match(table: Table, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the values of N images for each attribute, str [N], '' if missing.

    Raises:
      ValueError: no image is in the table, or an attribute has too many values.
    """
    if not any(name in table.values for name in ids):
        theirs = repr(next(iter(table.values))) if table.values else "no rows"
        raise ValueError(
            f"{table.path}: none of its ids is in the split; it has {theirs}, the split {str(ids[0])!r}"
        )
    nothing = ("",) * len(table.attributes)
    columns = np.array([table.values.get(name, nothing) for name in ids], dtype=object).T
    for name, column in zip(table.attributes, columns, strict=True):
        if (count := len(set(column) - {""})) > MAX_GROUPS:
            raise ValueError(
                f"{table.path}: {name!r} has {count:,} different values, expected at most {MAX_GROUPS} "
                "categories; bin numeric values, or remove the column"
            )
    return dict(zip(table.attributes, columns, strict=True))


def compare(
    probs: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    groups: np.ndarray | None,
    table: Table,
    copies: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns the metrics of each subgroup, and the largest gaps between subgroups.

    Args:
      probs: float [N, K], rows that sum to 1.
      labels: int [N].
      ids: N image IDs.
      groups: int [N], equal for identical images, which are resampled together within a subgroup; None
        resamples single images.
      table: from `read_table`.
      copies: int8 [N], see `leakage.find_duplicates`; None if unknown.

    Returns:
      'table' (its path), 'in_split' and 'not_in_split' (rows of the table), 'without_row' (images);
      'attributes': for each 'groups', where each value has 'n', the `METRICS`, their 'interval_95', and
      'without_near', the 'n', accuracy, and 'interval_95' without duplicates (None if unknown or no image
      remains); 'not_given' (images with a row but no value); 'gaps': for each of `GAPS` the 'highest' and
      'lowest' group of at least MIN_IMAGES, 'value' (their difference), and its 'interval_95', or None if
      there are no two such groups.

    Raises:
      ValueError: as `classification.check` and `match`.
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    classification.check(probs, labels)
    columns = match(table, ids)
    known = np.array([name in table.values for name in ids])

    def resample(chosen: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        of = None if groups is None else groups[chosen]
        return bootstrap.resample(probs[chosen], labels[chosen], of, seed=seed)

    found = {}
    for attribute, column in columns.items():
        rows, drawn = {}, {}
        # A seed per subgroup, because subgroups of equal size would have the same resamples.
        for seed, value in enumerate(sorted(set(column) - {""})):
            chosen = column == value
            drawn[value] = resample(chosen, seed)
            there = np.unique(labels[chosen])
            drawn[value]["macro_f1"] = np.nanmean(drawn[value]["f1"][:, there], axis=1)
            rows[value] = _metrics(probs[chosen], labels[chosen], drawn[value])
            rows[value]["without_near"] = None
            if copies is not None and (new := chosen & (copies == 0)).any():
                rows[value]["without_near"] = {
                    "n": int(new.sum()),
                    "accuracy": classification.accuracy(probs[new], labels[new]),
                    "interval_95": bootstrap.interval(resample(new, seed)["accuracy"]).tolist(),
                }
        found[attribute] = {
            "groups": rows,
            "not_given": int((known & (column == "")).sum()),
            "gaps": {metric: _largest_gap(rows, drawn, metric) for metric in GAPS},
        }
    return {
        "table": table.path,
        "in_split": int(known.sum()),
        "not_in_split": len(table.values) - int(known.sum()),
        "without_row": int((~known).sum()),
        "attributes": found,
    }


def _metrics(probs: np.ndarray, labels: np.ndarray, drawn: dict[str, np.ndarray]) -> dict[str, Any]:
    matrix = classification.confusion_matrix(probs, labels)
    scores = classification.scores(matrix) | {
        "ece": calibration.ece(probs, labels),
        "macro_f1": classification.per_class(matrix)["f1"][np.unique(labels)].mean(),
    }
    found = {metric: float(scores[metric]) for metric in METRICS}
    return {"n": len(labels)} | found | {"interval_95": bootstrap.intervals(drawn, found)}


def _largest_gap(rows: dict[str, Any], drawn: dict[str, Any], metric: str) -> dict[str, Any] | None:
    large = [value for value, row in rows.items() if row["n"] >= MIN_IMAGES]
    if len(large) < 2:
        return None
    pairs = itertools.permutations(large, 2)
    high, low = max(pairs, key=lambda pair: rows[pair[0]][metric] - rows[pair[1]][metric])
    return {
        "highest": high,
        "lowest": low,
        "value": rows[high][metric] - rows[low][metric],
        "interval_95": bootstrap.interval(drawn[high][metric] - drawn[low][metric]).tolist(),
    }
