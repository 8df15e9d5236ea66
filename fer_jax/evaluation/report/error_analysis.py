"""The images behind the figures: confident mistakes, hardest faces, doubtful labels, twins that disagree.

`probs` are float [N, K], `labels` int [N], `names` the K classes, `images` uint8 [N, H, W, C], an
array or an object indexed by integer arrays.
"""

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.evaluation import label_errors, leakage, plots
from fer_jax.io_utils import write_atomically

MISTAKES = 32  # faces on the sheet of mistakes
PER_CLASS = 8  # of each class on the sheet of the hardest
SUSPECTS = 32  # faces on the sheet of doubtful labels
TWINS = 16  # pairs on the sheet of twins


def confident_mistakes(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of the `MISTAKES` wrong predictions of the highest probability, highest first."""
    wrong = np.flatnonzero(probs.argmax(axis=1) != labels)
    return wrong[np.argsort(-probs[wrong].max(axis=1), kind="stable")][:MISTAKES]


def hardest(probs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """For each class the indices of its `PER_CLASS` images whose label got the lowest probability."""
    found = []
    for label in range(probs.shape[1]):
        members = np.flatnonzero(labels == label)
        found.append(members[np.argsort(probs[members, label], kind="stable")][:PER_CLASS])
    return found


def draw(
    out_dir: pathlib.Path, probs: np.ndarray, labels: np.ndarray, names: Sequence[str], images: Any
) -> None:
    """Writes mistakes.png and hardest.png; no sheet of mistakes where there are none."""
    predicted = probs.argmax(axis=1)
    wrong = confident_mistakes(probs, labels)
    sheet = out_dir / "mistakes.png"
    sheet.unlink(missing_ok=True)  # of an older report
    if len(wrong):
        captions = [
            f"{names[labels[i]]} taken for\n{names[predicted[i]]} {100 * probs[i].max():.1f} %" for i in wrong
        ]
        title = "The most confident mistakes: the label, what it was taken for, how surely"
        plots.plot_faces(images[wrong], captions, title, sheet)
    rows = [row for row in hardest(probs, labels) if len(row)]
    shown = np.concatenate(rows)
    captions = [f"{names[labels[i]]} {100 * probs[i, labels[i]]:.1f} %\n{names[predicted[i]]}" for i in shown]
    title = "Each class's hardest faces: the label and its probability, what it was taken for"
    # Every class begins a row.
    places = [row * PER_CLASS + i for row, members in enumerate(rows) for i in range(len(members))]
    plots.plot_faces(images[shown], captions, title, out_dir / "hardest.png", PER_CLASS, places)


def write_suspects(
    out_dir: pathlib.Path,
    probs: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    names: Sequence[str],
    images: Any = None,
) -> dict[str, int]:
    """Labels that are probably wrong, by a model that has not learnt them (see `label_errors`).

    Writes suspects.csv and, with images and unless there are none, suspects.png.

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
    """What becomes of images of one split that are nearly or wholly the same.

    Writes twins.csv, a row for each pair whose predictions or labels differ, and twins.png, the pairs
    whose predictions do.

    Returns:
      'pairs', those with different predictions ('predictions_differ') and with different labels
      ('labels_differ'), of which one at least is a mistake of the model or of the labels.
    """
    first, second = leakage.find_twins(images)
    predicted = probs.argmax(axis=1)
    differ = predicted[first] != predicted[second]
    labelled = labels[first] != labels[second]
    # The surest disagreement first.
    surest = np.argsort(-np.minimum(probs[first].max(axis=1), probs[second].max(axis=1)), kind="stable")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_one = ("id", "label", "prediction", "confidence")
    writer.writerow([f"{name}_{k}" for k in (1, 2) for name in of_one])
    for pair in surest[(differ | labelled)[surest]]:
        row = []
        for i in (first[pair], second[pair]):
            row += [ids[i], names[labels[i]], names[predicted[i]], f"{probs[i].max():.4f}"]
        writer.writerow(row)
    write_atomically(out_dir / "twins.csv", text.getvalue().encode())
    sheet = out_dir / "twins.png"
    sheet.unlink(missing_ok=True)
    pairs = surest[differ[surest]][:TWINS]
    if len(pairs):
        shown = np.stack([first[pairs], second[pairs]], axis=1).ravel()
        captions = [
            f"{names[labels[i]]}, taken for\n{names[predicted[i]]} {100 * probs[i].max():.1f} %"
            for i in shown
        ]
        title = "Pairs of nearly the same face with different predictions: the label, the prediction"
        plots.plot_faces(images[shown], captions, title, sheet)
    return {
        "pairs": len(first),
        "predictions_differ": int(differ.sum()),
        "labels_differ": int(labelled.sum()),
    }
