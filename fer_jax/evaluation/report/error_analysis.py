"""The images behind the figures: confident mistakes, hardest faces, doubtful labels, duplicates.

`probs` are float [N, K], `labels` int [N], `names` the K classes, `images` uint8 [N, H, W, C], an
array or an object indexed by integer arrays.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import plotting, tables
from fer_jax.evaluation import label_errors, leakage
from fer_jax.io_utils import write_atomically

MISTAKES = 32  # faces on the sheet of mistakes
PER_CLASS = 8  # of each class on the sheet of the hardest
SUSPECTS = 32  # faces on the sheet of doubtful labels
TWINS = 16  # pairs on the sheet of duplicates


def confident_mistakes(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the indices of the `MISTAKES` wrong predictions of the highest probability, highest first."""
    wrong = np.flatnonzero(probs.argmax(axis=1) != labels)
    return wrong[np.argsort(-probs[wrong].max(axis=1), kind="stable")][:MISTAKES]


def hardest(probs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Returns for each class the indices of its `PER_CLASS` images whose label got the lowest probability."""
    members = [np.flatnonzero(labels == label) for label in range(probs.shape[1])]
    return [of[np.argsort(probs[of, k], kind="stable")][:PER_CLASS] for k, of in enumerate(members)]


def draw(
    out_dir: pathlib.Path, probs: np.ndarray, labels: np.ndarray, names: Sequence[str], images: Any
) -> None:
    """Writes mistakes.png, unless there are no mistakes, and hardest.png."""
    label, prediction = np.array(names)[labels], np.array(names)[probs.argmax(axis=1)]
    wrong = confident_mistakes(probs, labels)
    sheet = out_dir / "mistakes.png"
    sheet.unlink(missing_ok=True)  # of an older report
    if len(wrong):
        captions = [f"{label[i]} taken for\n{prediction[i]} {100 * probs[i].max():.1f} %" for i in wrong]
        title = "The most confident mistakes: the label, the prediction and its probability"
        plotting.plot_faces(images[wrong], captions, title, sheet)
    rows = [row for row in hardest(probs, labels) if len(row)]
    shown = np.concatenate(rows)
    captions = [f"{label[i]} {100 * probs[i, labels[i]]:.1f} %\n{prediction[i]}" for i in shown]
    title = "Each class's hardest faces: the label and its probability, the prediction"
    # Every class begins a row.
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
    """Writes suspects.csv, and suspects.png if there are images and suspects (see `label_errors`).

    The model must not have been trained on these labels.

    Returns:
      How many of each class's labels are suspects.
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
    """Writes what the model makes of identical and nearly identical images within the split.

    twins.csv has a row for each pair whose predictions or labels differ, twins.png shows the pairs whose
    predictions differ.

    Returns:
      'pairs', those with different predictions ('predictions_differ'), and those with different labels
      ('labels_differ'); in each of these the model or the labels make at least one mistake.
    """
    first, second = leakage.find_duplicate_pairs(images)
    predicted = probs.argmax(axis=1)
    label, prediction = np.array(names)[labels], np.array(names)[predicted]
    differ, labelled = predicted[first] != predicted[second], labels[first] != labels[second]
    # The surest disagreement first.
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
        captions = [f"{label[i]}, taken for\n{prediction[i]} {100 * probs[i].max():.1f} %" for i in shown]
        title = "Pairs of nearly the same face with different predictions: the label, the prediction"
        plotting.plot_faces(images[shown], captions, title, sheet)
    counts = {"predictions_differ": int(differ.sum()), "labels_differ": int(labelled.sum())}
    return {"pairs": len(first)} | counts
