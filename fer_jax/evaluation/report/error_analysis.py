"""Analyzes errors: confident errors, hardest faces, suspected labels, and duplicates.

`probs` are float [N, K], `labels` int [N], `names` the K classes, and `images` uint8 [N, H, W, C], an array
or an object indexed by integer arrays.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import plotting, tables
from fer_jax.evaluation import label_errors, leakage
from fer_jax.io_utils import write_atomically

MISTAKES = 32  # faces on the sheet of errors
PER_CLASS = 8  # faces per class on the sheet of the hardest
SUSPECTS = 32  # faces on the sheet of suspected labels
TWINS = 16  # pairs on the sheet of duplicates


def confident_mistakes(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the indices of the `MISTAKES` wrong predictions with the highest probability, descending."""
    wrong = np.flatnonzero(probs.argmax(axis=1) != labels)
    return wrong[np.argsort(-probs[wrong].max(axis=1), kind="stable")][:MISTAKES]


def hardest(probs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Returns, by class, the indices of the `PER_CLASS` images with the lowest label probability."""
    members = [np.flatnonzero(labels == label) for label in range(probs.shape[1])]
    return [of[np.argsort(probs[of, k], kind="stable")][:PER_CLASS] for k, of in enumerate(members)]


def draw(
    out_dir: pathlib.Path, probs: np.ndarray, labels: np.ndarray, names: Sequence[str], images: Any
) -> None:
    """Writes mistakes.png, if there are errors, and hardest.png."""
    label, prediction = np.array(names)[labels], np.array(names)[probs.argmax(axis=1)]
    wrong = confident_mistakes(probs, labels)
    sheet = out_dir / "mistakes.png"
    sheet.unlink(missing_ok=True)  # from an older report
    if len(wrong):
        captions = [f"{label[i]}, predicted\n{prediction[i]} {100 * probs[i].max():.1f} %" for i in wrong]
        title = "The most confident errors: label, prediction, and its probability"
        plotting.plot_faces(images[wrong], captions, title, sheet)
    rows = [row for row in hardest(probs, labels) if len(row)]
    shown = np.concatenate(rows)
    captions = [f"{label[i]} {100 * probs[i, labels[i]]:.1f} %\n{prediction[i]}" for i in shown]
    title = "Hardest faces by class: label and its probability, prediction"
    # Every class starts a row.
    places = [row * PER_CLASS + i for row, members in enumerate(rows) for i in range(len(members))]
    plotting.plot_faces(images[shown], captions, title, out_dir / "hardest.png", PER_CLASS, places)


def write_suspects(
    out_dir: pathlib.Path,
    probs: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    names: Sequence[str],
    images: Any = None,
) -> dict[str, int]:
    """Writes suspects.csv, and suspects.png if there are suspects and images (see `label_errors`).

    The model must not be trained on these labels.

    Returns:
      The number of suspects by class.
    """
    suspects = label_errors.find_suspects(probs, labels, ids)
    label_errors.write_suspects(out_dir / "suspects.csv", suspects, names)
    if images is not None and suspects:
        label_errors.plot_suspects(images, suspects[:SUSPECTS], names, out_dir / "suspects.png")
    return {name: sum(suspect.label == label for suspect in suspects) for label, name in enumerate(names)}


def write_twins(
    out_dir: pathlib.Path,
    probs: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    names: Sequence[str],
    images: Any,
) -> dict[str, int]:
    """Compares predictions and labels of duplicates within the split.

    Writes twins.csv, with a row for each pair whose predictions or labels differ, and twins.png, with pairs
    whose predictions differ.

    Returns:
      The numbers of 'pairs', of pairs whose predictions differ ('predictions_differ'), and of pairs whose
      labels differ ('labels_differ').
    """
    first, second = leakage.find_duplicate_pairs(images)
    predicted = probs.argmax(axis=1)
    label, prediction = np.array(names)[labels], np.array(names)[predicted]
    differ, labelled = predicted[first] != predicted[second], labels[first] != labels[second]
    # Most confident disagreement first.
    surest = np.argsort(-np.minimum(probs[first].max(axis=1), probs[second].max(axis=1)), kind="stable")
    rows = [[f"{name}_{k}" for k in (1, 2) for name in ("id", "label", "prediction", "confidence")]]
    for pair in surest[(differ | labelled)[surest]]:
        rows.append([])
        for i in (first[pair], second[pair]):
            rows[-1] += [ids[int(i)], label[i], prediction[i], f"{probs[i].max():.4f}"]
    write_atomically(out_dir / "twins.csv", tables.csv_text(rows).encode())
    sheet = out_dir / "twins.png"
    sheet.unlink(missing_ok=True)
    pairs = surest[differ[surest]][:TWINS]
    if len(pairs):
        shown = np.stack([first[pairs], second[pairs]], axis=1).ravel()
        captions = [f"{label[i]}, predicted\n{prediction[i]} {100 * probs[i].max():.1f} %" for i in shown]
        title = "Duplicates with different predictions: label, prediction"
        plotting.plot_faces(images[shown], captions, title, sheet)
    counts = {"predictions_differ": int(differ.sum()), "labels_differ": int(labelled.sum())}
    return {"pairs": len(first)} | counts
