"""Pictures of a training run."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


def save_image(image: np.ndarray, path: pathlib.Path) -> None:
    """Writes uint8 [H, W, 1 or 3]."""
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def plot_training(records: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Loss, accuracy, learning rate and speed over the epochs, from a run's metrics.jsonl."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (loss, accuracy), (rate, speed) = figure.subplots(2, 2)
    train = [r for r in records if r["kind"] == "train"]
    evals = [r for r in records if r["kind"] == "eval"]

    def line(axis, rows, key, label, **style):
        axis.plot([r["epoch"] for r in rows], [r[key] for r in rows], label=label, **style)

    for axis, key, title in ((loss, "loss", "Loss"), (accuracy, "accuracy", "Accuracy")):
        line(axis, train, key, "training batches, augmented", color="0.7", linewidth=1)
        line(axis, evals, key, "evaluation", color="C0", marker="." if len(evals) < 60 else None)
        axis.set_title(title)
    line(accuracy, evals, "macro_f1", "evaluation, macro F1", color="C1", linewidth=1)
    if evals:
        best = max(evals, key=lambda r: r["accuracy"])
        accuracy.plot(best["epoch"], best["accuracy"], "o", color="C3", fillstyle="none")
        accuracy.annotate(
            f"{best['accuracy']:.4f}",
            (best["epoch"], best["accuracy"]),
            (-8, -14),
            textcoords="offset points",
            ha="right",
            color="C3",
        )
    line(rate, train, "learning_rate", "learning rate", color="C2")
    rate.set_title("Learning rate")
    line(speed, train, "images_per_second", "images/s", color="C4", linewidth=1)
    speed.set_title("Images a second")
    speed.set_ylim(bottom=0)
    for axis in (loss, accuracy, rate, speed):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    loss.legend()
    accuracy.legend()
    figure.savefig(path, dpi=100)


def confusion_image(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A confusion matrix int [K, K] (rows: true class) as a picture uint8 [H, W, 3]."""
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        dark = shares[row, column] > 0.5
        axis.text(column, row, matrix[row, column], ha="center", va="center", color="w" if dark else "k")
    axis.set_xticks(range(len(names)), names, rotation=45)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
