"""Predictions as a file: CSV, one row an image, from which all figures follow."""

import csv
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import statistics
from fer_jax.files import write_atomically


def write_predictions(path: pathlib.Path, probs: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> None:
    """Writes `id,label,prediction` and the seven probabilities, in full.

    Args:
      path: of the file.
      probs: float [N, 7].
      labels: int [N], ids of `EMOTIONS`.
      ids: N names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "label", "prediction", *EMOTIONS])
    for name, label, row in zip(ids, labels.tolist(), probs.tolist(), strict=True):
        writer.writerow([name, label, row.index(max(row)), *map(repr, row)])
    write_atomically(path, text.getvalue().encode())


def read_predictions(path: os.PathLike | str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads what `write_predictions`, or a report, has written.

    Returns:
      Probabilities float64 [N, 7], labels int64 [N] and N ids.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it lacks a column or a row cannot be read (the message names file and row), or as
        `statistics.check`.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if missing := [name for name in ("id", "label", *EMOTIONS) if name not in (lines.fieldnames or ())]:
            raise ValueError(
                f"{path} lacks the columns {', '.join(missing)}; expected predictions.csv of a report"
            )
        ids, labels, probs = [], [], []
        for line in lines:
            try:
                labels.append(int(line["label"]))
                probs.append([float(line[name]) for name in EMOTIONS])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, row {lines.line_num}: expected a label from 0 to 6 and seven probabilities "
                    f"({error})"
                ) from None
            ids.append(line["id"])
    result = np.array(probs, np.float64).reshape(-1, len(EMOTIONS)), np.array(labels, np.int64)
    try:
        statistics.check(*result)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return *result, ids
