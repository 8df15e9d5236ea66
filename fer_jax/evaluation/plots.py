"""Pictures of an evaluation."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: pathlib.Path) -> None:
    """A confusion matrix int [K, K] (rows: true class) twice: images, and shares of the row."""
    figure, (left, right) = _figure(12.5, 5.6, columns=2)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    panels = (
        (left, "Images", [[f"{n:,}" for n in row] for row in matrix]),
        (right, "Share of the true class", [[f"{100 * v:.1f}" for v in row] for row in shares]),
    )
    for axis, title, texts in panels:
        # Both are coloured by share: a common class would drown the others in counts.
        picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(matrix.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, texts[row][column], ha="center", va="center", color=color)
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names)
        axis.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(picture, ax=right, format=lambda v, _: f"{v:.0%}", shrink=0.85)
    right.set_title("Share of the true class, %")
    figure.savefig(path, dpi=110)


def plot_reliability(table: dict[str, np.ndarray], ece: float, accuracy: float, path: pathlib.Path) -> None:
    """Accuracy by confidence, and how many images have that confidence.

    Args:
      table: from `statistics.reliability`.
      ece: expected calibration error, for the title.
      accuracy: of all images, for the title.
      path: of the picture.
    """
    figure, (top, bottom) = _figure(6.4, 7.2, rows=2, height_ratios=(3, 1), sharex=True)
    bins = len(table["count"])
    edges = np.linspace(0, 1, bins + 1)
    middle, width = (edges[1:] + edges[:-1]) / 2, 1 / bins
    filled = table["count"] > 0
    top.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1, label="perfectly calibrated")
    top.bar(
        middle[filled],
        table["accuracy"][filled],
        width * 0.92,
        color="C0",
        label="accuracy of the bin",
    )
    top.plot(
        middle[filled],
        table["confidence"][filled],
        "_",
        color="C3",
        markersize=17,
        markeredgewidth=2.5,
        label="mean confidence of the bin",
    )
    mean = np.average(table["confidence"], weights=table["count"])
    verdict = "over-confident" if mean > accuracy else "under-confident"
    top.set_title(
        f"ECE {100 * ece:.1f} points\n"
        f"mean confidence {100 * mean:.1f} %, accuracy {100 * accuracy:.1f} %: {verdict}"
    )
    top.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
    top.legend(loc="upper left")
    top.grid(alpha=0.3)
    bottom.bar(middle, table["count"], width * 0.92, color="0.6")
    bottom.set(xlabel="confidence (highest probability)", ylabel="images")
    bottom.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def plot_per_class(
    scores: dict[str, np.ndarray], names: Sequence[str], macro_f1: float, path: pathlib.Path
) -> None:
    """Precision, recall and F1 of every class; `scores` are from `statistics.per_class`."""
    figure, axis = _figure(10, 4.8)
    place = np.arange(len(names))
    for i, (key, label) in enumerate((("precision", "precision"), ("recall", "recall"), ("f1", "F1"))):
        bars = axis.bar(place + (i - 1) * 0.27, scores[key], 0.25, label=label, color=f"C{i}")
        axis.bar_label(bars, [f"{100 * v:.0f}" for v in scores[key]], fontsize=8, padding=1)
    axis.axhline(macro_f1, color="0.4", linestyle="--", linewidth=1)
    labels = [f"{name}\n{n:,} images" for name, n in zip(names, scores["support"], strict=True)]
    axis.set_xticks(place, labels)
    axis.set(ylim=(0, 1.08), xlim=(-0.55, len(names) - 0.45))
    axis.set_title(f"Scores by class (dashed: macro F1 {macro_f1:.3f})", loc="left")
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.savefig(path, dpi=110)


def plot_faces(
    images: np.ndarray, captions: Sequence[str], title: str, path: pathlib.Path, columns: int = 8
) -> None:
    """A sheet of faces uint8 [N, H, W, 1 or 3], each with its caption above."""
    columns = min(columns, max(len(images), 4))
    rows = max(-(-len(images) // columns), 1)
    width, height = 1.08, 1.38  # of a cell, in faces; one axis for all draws faster than many
    figure, axis = _figure(1.45 * width * columns, 1.45 * height * rows + 0.5)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = i % columns * width, i // columns * height
        grey = image.shape[-1] == 1
        pixels, colors = (image[..., 0], "gray") if grey else (image, None)
        extent = (left, left + 1, top + 1, top)
        axis.imshow(pixels, colors, vmin=0, vmax=255, interpolation="bicubic", extent=extent)
        axis.text(left + 0.5, top - 0.03, caption, fontsize=8.5, ha="center", va="bottom")
    axis.set(xlim=(0, columns * width - 0.08), ylim=(rows * height - 0.36, -0.36))
    axis.axis("off")
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=110)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs):
    """A figure without pyplot, whose global state and windows a library has no business with."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if "height_ratios" in kwargs:
        kwargs["gridspec_kw"] = {"height_ratios": kwargs.pop("height_ratios")}
    return figure, figure.subplots(rows, columns, **kwargs)
