"""The pictures of an audit. They are drawn without pyplot, whose state is global."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_jax.data.audit.audit import Collection
from fer_jax.data.emotions import EMOTIONS

COLORS = {"train": "#4477aa", "validation": "#ee6677", "test": "#228833", "all": "#4477aa"}
_CLASS_COLORS = ("#cc3311", "#117733", "#aa4499", "#ddaa33", "#332288", "#33bbee", "#777777")
_SHOWN = 24  # images, groups or pairs in a picture
_DPI = 110


def write_pictures(folder: Path, data: Collection, report: dict[str, Any]) -> dict[str, str]:
    """Writes those pictures that have something to show for this source.

    Returns:
      File names and captions, in the order in which to look at them.
    """
    index = {name: i for i, name in enumerate(data.ids)}
    pictures: dict[str, tuple[str, Callable[[], Figure | None]]] = {
        "class_distribution": ("Images of each class, split by split", lambda: class_distribution(report)),
        "samples": ("Images of each class, drawn at random", lambda: samples(data)),
        "mean_faces": ("The mean image of each class", lambda: mean_faces(data)),
        "pixels": ("Brightness, contrast and pixel values", lambda: pixels(data)),
        "flattest": ("The images with the least contrast", lambda: flattest(data)),
        "identical_conflicts": (
            "Identical images with different labels",
            lambda: conflicts(data, report, index),
        ),
        "near_duplicates": (
            "Near duplicates, the closest first",
            lambda: near_duplicates(data, report, index),
        ),
    }
    written = {}
    for name, (caption, draw) in pictures.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)  # of an earlier audit
        if (figure := draw()) is not None:
            figure.savefig(path, dpi=_DPI)
            written[path.name] = caption
    return written


def class_distribution(report: dict[str, Any]) -> Figure:
    """Draws the share of each class as bars, one color per split, with the counts written on them."""
    splits = report["splits"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(splits)
    for place, (name, facts) in enumerate(splits.items()):
        x = np.arange(len(EMOTIONS)) + (place - (len(splits) - 1) / 2) * width
        shares = [100 * facts["class_counts"][e] / facts["count"] for e in EMOTIONS]
        label = f"{name} ({facts['count']:,})"
        bars = axes.bar(x, shares, width * 0.92, label=label, color=COLORS[name])
        counts = [f"{facts['class_counts'][e]:,}" for e in EMOTIONS]
        axes.bar_label(bars, counts, fontsize=8 if len(splits) < 3 else 6.5, padding=2)
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_ylabel("share of the split in %")
    axes.set_title("Class distribution (numbers: images)", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def samples(data: Collection) -> Figure:
    """Draws a row of random images for each class."""
    columns = max(len(row) for row in data.samples)
    figure = Figure(figsize=(1.1 + 0.8 * columns, 0.84 * len(EMOTIONS)), layout="constrained")
    grid = figure.subplots(len(EMOTIONS), columns, squeeze=False)
    for row, (name, images) in enumerate(zip(EMOTIONS, data.samples, strict=True)):
        for column in range(columns):
            _show(grid[row, column], images[column] if column < len(images) else None)
        style = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 10, "labelpad": 8}
        grid[row, 0].set_ylabel(name, **style)
    return figure


def mean_faces(data: Collection) -> Figure:
    """Draws the mean of each class's 48 x 48 images: a face if the faces are aligned, otherwise a blur."""
    means = [data.small[data.labels == k].mean(axis=0) for k in np.unique(data.labels)]
    low, high = np.min(means), np.max(means)
    figure = Figure(figsize=(1.6 * len(means), 1.9), layout="constrained")
    grid = figure.subplots(1, len(means), squeeze=False)[0]
    for axes, mean, k in zip(grid, means, np.unique(data.labels), strict=True):
        _show(axes, 255 * (mean - low) / max(high - low, 1))
        axes.set_title(f"{EMOTIONS[k]} ({(data.labels == k).sum():,})", fontsize=9)
    return figure


def pixels(data: Collection) -> Figure:
    """Draws histograms: mean and std of each image by class, and all pixel values by split."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    brightness, contrast, values = figure.subplots(1, 3)
    for axes, numbers, title, top in (
        (brightness, data.mean, "brightness: mean of an image", 1.0),
        (contrast, data.std, "contrast: std of an image", 0.5),
    ):
        bins = np.linspace(0, top, 33)
        for k, name in enumerate(EMOTIONS):
            chosen = numbers[data.labels == k]
            if len(chosen):
                shares = 100 * np.histogram(chosen, bins)[0] / len(chosen)
                axes.stairs(shares, bins, label=name, color=_CLASS_COLORS[k], linewidth=1.5)
        _label(axes, title, "images of the class in %")
    edges = np.arange(0, 257, 4)
    for s, name in enumerate(data.split_names):
        counts = np.bincount(data.small[data.splits == s].ravel(), minlength=256)
        shares = 100 * np.add.reduceat(counts, edges[:-1]) / counts.sum()
        values.stairs(shares, edges / 256, label=name, color=COLORS[name], linewidth=1.5)
    _label(values, "pixel values", "pixels of the split in %")
    return figure


def flattest(data: Collection) -> Figure:
    """Draws the images with the smallest std, blank ones first; identical ones once."""
    order = np.argsort(data.std, kind="stable")
    copies = np.bincount(data.groups)
    chosen = order[np.sort(np.unique(data.groups[order], return_index=True)[1])][:_SHOWN]
    cells = []
    for i in chosen:
        times = f" (1 of {n} copies)" if (n := copies[data.groups[i]]) > 1 else ""
        name = data.ids[i] if len(data.ids[i]) <= 22 else "…" + data.ids[i][-21:]
        lines = (f"{EMOTIONS[data.labels[i]]}{times}", f"std {data.std[i]:.3f}", name)
        cells.append((data.small[i], lines, "black"))
    return _sheet(cells, 8, 1.5, 1.95, 0.1)


def conflicts(data: Collection, report: dict[str, Any], index: dict[str, int]) -> Figure | None:
    """Draws one image of each group of identical images with more than one label, and its labels."""
    groups = [g["images"] for g in report["identical"]["members"] if g["conflict"]]
    if not groups:
        return None
    cells = []
    for images in sorted(groups, key=len, reverse=True)[:_SHOWN]:
        lines = _label_lines(images)
        lines = [*lines[:3], *(["..."] if len(lines) > 3 else [])]
        cells.append((data.small[index[images[0]["id"]]], lines, "black"))
    figure = _sheet(cells, 8, 1.7, 2.2, 0.5)
    figure.suptitle(f"Identical images, different labels (groups: {len(groups):,})", fontsize=11)
    return figure


def _label_lines(images: list[dict[str, str]]) -> list[str]:
    """Returns lines such as "2 x sad (train)", the most frequent first."""
    pairs = [(image["label"], image["split"]) for image in images]
    unique = sorted(set(pairs), key=lambda pair: (-pairs.count(pair), pair))
    return [f"{pairs.count(pair)} x {pair[0]} ({pair[1]})" for pair in unique]


def near_duplicates(data: Collection, report: dict[str, Any], index: dict[str, int]) -> Figure | None:
    """Draws pairs side by side, evenly spread over those listed in the report, no image twice."""
    pairs, seen = [], set()
    for pair in report["near"]["closest"]:
        both = {int(data.groups[index[image["id"]]]) for image in pair["images"]}
        if not both & seen:
            pairs.append(pair)
            seen |= both
    if not pairs:
        return None
    cells = []
    for place in np.unique(np.linspace(0, len(pairs) - 1, _SHOWN).astype(int)):
        (a, b), correlation = pairs[place]["images"], pairs[place]["correlation"]
        left, right = (data.small[index[image["id"]]] for image in (a, b))
        gap = np.full((len(left), 2), 255, np.uint8)
        labels = f"{a['label']} ({a['split']}) | {b['label']} ({b['split']})"
        color = "#cc3311" if a["label"] != b["label"] else "black"
        both = np.concatenate([left, gap, right], axis=1)
        cells.append((both, (labels, f"correlation {correlation:.3f}"), color))
    figure = _sheet(cells, 4, 3.1, 2.0)
    title = f"Near duplicates (pairs: {report['near']['pairs']:,}; red: labels differ)"
    figure.suptitle(title, fontsize=11)
    return figure


def _sheet(
    cells: Sequence[tuple[np.ndarray, Sequence[str], str]],
    columns: int,
    width: float,
    height: float,
    more: float = 0,
) -> Figure:
    """Draws images, captions, colors of the captions; size of a cell, and extra height, in inches."""
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(width * columns, more + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (image, lines, color) in zip(grid, cells, strict=False):
        _show(axes, image)
        axes.set_xlabel("\n".join(lines), fontsize=7.5, color=color)
    for axes in figure.axes[len(cells) :]:
        axes.set_visible(False)
    return figure


def _show(axes: Axes, image: np.ndarray | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if image is not None:
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _label(axes: Axes, title: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
