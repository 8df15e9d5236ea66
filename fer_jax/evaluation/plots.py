"""Pictures of an evaluation. What draws one writes it to `path` as PNG and returns its figure."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage


def draw_confusion(
    axis: Axes, matrix: np.ndarray, names: Sequence[str], *, percent: bool = False
) -> AxesImage:
    """A confusion matrix int [K, K] (rows: true class), shaded by the share of the true class.

    A common class would drown the others if counts were the shade.

    Args:
      axis: to draw in.
      matrix: counts of images.
      names: of the K classes.
      percent: write the shares instead of the counts.

    Returns:
      The shades, for a colour bar: shares in [0, 1].
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{100 * share:.1f}" if percent else f"{matrix[row, column]:,}"
        axis.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else "black")
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true")
    return picture


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: pathlib.Path) -> Figure:
    """A confusion matrix int [K, K] (rows: true class) twice: images, and shares of the row."""
    figure, (left, right) = new_figure(12.5, 5.6, columns=2)
    draw_confusion(left, matrix, names)
    left.set_title("Images")
    picture = draw_confusion(right, matrix, names, percent=True)
    right.set_title("Percent of the true class")
    bar = figure.colorbar(picture, ax=[left, right], format=lambda v, _: f"{v:.0%}", shrink=0.85)
    bar.set_label("share of the true class (both pictures)")
    figure.savefig(path, dpi=110)
    return figure


def plot_reliability(table: dict[str, np.ndarray], ece: float, accuracy: float, path: pathlib.Path) -> Figure:
    """Accuracy by confidence, and how many images have that confidence.

    Args:
      table: from `statistics.reliability`.
      ece: expected calibration error, for the title.
      accuracy: of all images, for the title.
      path: of the picture.
    """
    figure, (top, bottom) = new_figure(6.4, 7.2, rows=2, sharex=True, height_ratios=(3, 1))
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
    if abs(mean - accuracy) < 1.96 * np.sqrt(accuracy * (1 - accuracy) / table["count"].sum()):
        verdict = "no clear difference"
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
    return figure


def plot_per_class(
    scores: dict[str, np.ndarray], names: Sequence[str], macro_f1: float, path: pathlib.Path
) -> Figure:
    """Precision, recall and F1 of every class; `scores` are from `statistics.per_class`."""
    figure, axis = new_figure(10, 4.8)
    place = np.arange(len(names))
    for i, (key, label) in enumerate((("precision", "precision"), ("recall", "recall"), ("f1", "F1"))):
        bars = axis.bar(place + (i - 1) * 0.27, scores[key], 0.25, label=label, color=f"C{i}")
        # On white, for the line of the macro F1 would cross them.
        on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        texts = [f"{v:.2f}" for v in scores[key]]
        axis.bar_label(bars, texts, fontsize=8, padding=2, bbox=on_white)
    axis.axhline(macro_f1, color="0.4", linestyle="--", linewidth=1)
    labels = [f"{name}\n{n:,} images" for name, n in zip(names, scores["support"], strict=True)]
    axis.set_xticks(place, labels)
    axis.set(ylabel="score", ylim=(0, 1.08), xlim=(-0.55, len(names) - 0.45))
    axis.set_title(f"Scores by class (dashed: macro F1 {macro_f1:.3f})", loc="left")
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.savefig(path, dpi=110)
    return figure


def plot_faces(
    images: np.ndarray, captions: Sequence[str], title: str, path: pathlib.Path, columns: int = 8
) -> Figure:
    """A sheet of faces uint8 [N, H, W, 1 or 3], each with its caption above."""
    columns = min(columns, max(len(images), 4))
    rows = max(-(-len(images) // columns), 1)
    width, height = 1.08, 1.38  # of a cell, in faces; one axis for all draws faster than many
    figure, axis = new_figure(1.45 * width * columns, 1.45 * height * rows + 0.5)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = i % columns * width, i // columns * height
        grey = image.shape[-1] == 1
        pixels, colors = (image[..., 0], "gray") if grey else (image, None)
        # The longer side fills the cell.
        high, wide = np.array(image.shape[:2]) / max(image.shape[:2])
        extent = (left + 0.5 - wide / 2, left + 0.5 + wide / 2, top + high, top)
        axis.imshow(pixels, colors, vmin=0, vmax=255, interpolation="bicubic", extent=extent)
        axis.text(left + 0.5, top - 0.06, caption, fontsize=8.5, ha="center", va="baseline")
    axis.set(xlim=(0, columns * width - 0.08), ylim=(rows * height - 0.36, -0.36))
    axis.axis("off")
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=110)
    return figure


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs):
    """A figure (size in inches) and its axes as `Figure.subplots` (which takes `kwargs`) gives them.

    Without pyplot, whose global state and windows a library has no business with.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **kwargs)
