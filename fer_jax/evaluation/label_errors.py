"""Finds likely label errors by confident learning (Northcutt et al. 2021, arXiv:1911.00068)."""

import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fer_jax import plotting, tables
from fer_jax.evaluation.metrics import classification
from fer_jax.io_utils import write_atomically


class Suspect(NamedTuple):
    """An image whose label is likely wrong."""

    index: int  # in the split
    id: str
    label: int
    suggested: int  # the most probable class
    quality: float  # probability of the label, in [0, 1]


def find_suspects(probs: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> list[Suspect]:
    """Returns cleanlab's label issues, lowest label quality (self-confidence) first.

    The probabilities float [N, K] must be out of sample; the labels are int [N].

    Raises:
      ValueError: as `classification.check`, or the number of IDs differs.
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    classification.check(probs, labels)
    if len(ids) != len(labels):
        raise ValueError(f"expected an id for each of {len(labels)} images, got {len(ids)}")
    from cleanlab.filter import find_label_issues  # takes seconds to import

    with warnings.catch_warnings():
        # Classes without images do not prevent checking the others.
        warnings.filterwarnings("ignore", "May not flag all label issues in class")
        # One process, because forking a process that runs JAX may hang.
        ranked = find_label_issues(labels, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        Suspect(int(i), str(ids[i]), int(labels[i]), int(probs[i].argmax()), float(probs[i, labels[i]]))
        for i in ranked
    ]


def write_suspects(path: pathlib.Path, suspects: Sequence[Suspect], names: Sequence[str]) -> None:
    """Writes a CSV file with id, label, suggested, and quality, for config.data.drop_ids."""
    rows = [("id", "label", "suggested", "quality")]
    rows += [(s.id, names[s.label], names[s.suggested], f"{s.quality:.6g}") for s in suspects]
    write_atomically(path, tables.csv_text(rows).encode())


def plot_suspects(
    images: Any, suspects: Sequence[Suspect], names: Sequence[str], path: pathlib.Path
) -> "plotting.Figure":
    """Plots suspects with their label, its probability, and the suggested class.

    `images` are those of the split, uint8 [N, H, W, C], an array or an object that integer arrays index.
    """
    captions = [f"{names[s.label]} {100 * s.quality:.1f} %\nor {names[s.suggested]}?" for s in suspects]
    title = f"The {len(suspects)} labels of lowest quality: label and its probability, suggested class"
    return plotting.plot_faces(images[np.array([s.index for s in suspects], int)], captions, title, path)
