"""Figures of a training run."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from fer_jax import plotting
from fer_jax.evaluation import plots

# Selection metrics, and the labels of their curves.
_SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


def save_image(image: np.ndarray, path: pathlib.Path) -> None:
    """Writes an image uint8 [H, W, 1 or 3]."""
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def plot_training(
    records: Sequence[dict[str, Any]], path: pathlib.Path, *, metric: str = "accuracy"
) -> "plotting.Figure":
    """Plots loss, scores, learning rate, and speed over the epochs, from the records of metrics.jsonl.

    Circles the first maximum of the selection metric ("accuracy", "balanced_accuracy", or "macro_f1").
    """
    figure, ((loss, score), (rate, speed)) = plotting.new_figure(12, 8, rows=2, columns=2)
    train = [r for r in records if r["kind"] == "train"]
    evals = [r for r in records if r["kind"] == "eval"]
    marker = "." if len(evals) < 60 else None

    def line(axis, rows, key, label, **style):
        axis.plot([r["epoch"] for r in rows], [r[key] for r in rows], label=label, **style)

    line(loss, train, "loss", "training batches, augmented", color="0.7", linewidth=1)
    line(loss, evals, "loss", "evaluation", color="C0", marker=marker)
    loss.set_title("Loss")
    line(score, train, "accuracy", "accuracy of training batches, augmented", color="0.7", linewidth=1)
    for color, (key, name) in zip(("C0", "C2", "C1"), _SCORES.items(), strict=True):
        line(score, evals, key, f"evaluation, {name}", color=color, marker=marker)
    if evals:
        best = max(evals, key=lambda r: r[metric])
        label = f"best {_SCORES[metric]}: {best[metric]:.4f} at epoch {best['epoch']:.1f}"
        line(score, [best], metric, label, color="C3", marker="o", fillstyle="none", linestyle="none")
    score.set_title("Scores")
    line(rate, train, "learning_rate", "learning rate", color="C2")
    rate.set_title("Learning rate")
    rate.set_ylim(bottom=0)
    line(speed, train, "images_per_second", "images/s", color="C4", linewidth=1)
    speed.set_title("Images per second")
    speed.set_ylim(bottom=0)
    for axis in (loss, score, rate, speed):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    loss.legend()
    score.legend(fontsize=9)
    return plotting.save(figure, path, dpi=100)


def confusion_image(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns a confusion matrix int [K, K] (rows: true class) as an image uint8 [H, W, 3]."""
    figure, axis = plotting.new_figure(6, 5.5)
    plots.draw_confusion(axis, matrix, names)
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
