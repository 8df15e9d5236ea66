"""Figures of an audit; each plot function writes one to `path` as PNG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax import plotting
from fer_jax.data.audit.audit import Collection
from fer_jax.data.emotions import EMOTIONS

COLORS = {"train": "#4477aa", "validation": "#ee6677", "test": "#228833", "all": "#4477aa"}
_CLASS_COLORS = ("#cc3311", "#117733", "#aa4499", "#ddaa33", "#332288", "#33bbee", "#777777")
_SHOWN = 24  # images, groups, or pairs per figure


def write_pictures(folder: Path, data: Collection, report: dict[str, Any]) -> dict[str, str]:
    """Writes the figures that apply to this source.

    Returns:
      Captions by file name, in the order of the page.
    """
    pictures: dict[str, tuple[str, Callable[[Collection, dict[str, Any], Path], object]]] = {
        "class_distribution.png": ("Images of each class, split by split", class_distribution),
        "samples.png": ("Random images of each class", samples),
        "mean_faces.png": ("The mean image of each class", mean_faces),
        "pixels.png": ("Brightness, contrast, and pixel values", pixels),
        "flattest.png": ("The images with the least contrast", flattest),
        "identical_conflicts.png": ("Identical images with different labels", conflicts),
        "near_duplicates.png": ("Near duplicates, the closest first", near_duplicates),
    }
    for name, (_, draw) in pictures.items():
        (folder / name).unlink(missing_ok=True)  # from an earlier audit
        draw(data, report, folder / name)
    return {name: caption for name, (caption, _) in pictures.items() if (folder / name).is_file()}


def class_distribution(data: Collection, report: dict[str, Any], path: Path) -> None:
    """Plots class shares as bars labeled with counts, one color per split."""
    splits = report["splits"]
    figure, axes = plotting.new_figure(10, 4.2)
    width = 0.8 / len(splits)
    for place, (name, of) in enumerate(splits.items()):
        x = np.arange(len(EMOTIONS)) + (place - (len(splits) - 1) / 2) * width
        shares = [100 * of["class_counts"][e] / of["count"] for e in EMOTIONS]
        bars = axes.bar(x, shares, width * 0.92, label=f"{name} ({of['count']:,})", color=COLORS[name])
        counts = [f"{of['class_counts'][e]:,}" for e in EMOTIONS]
        axes.bar_label(bars, counts, fontsize=8 if len(splits) < 3 else 6.5, padding=2)
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_ylabel("share of the split in %")
    axes.set_title("Class distribution (numbers: images)", loc="left")
    axes.legend(frameon=False)
    plotting.save(figure, path)


def samples(data: Collection, report: dict[str, Any], path: Path) -> None:
    """Plots a row of random images for each class."""
    columns = max(4, *map(len, data.samples))
    cells = [(k, i) for k, images in enumerate(data.samples) for i in range(len(images))]
    captions = ["" if i else EMOTIONS[k] for k, i in cells]
    places = [k * columns + i for k, i in cells]
    images = [data.samples[k][i] for k, i in cells]
    plotting.plot_faces(images, captions, "Images of each class", path, columns, places)


def mean_faces(data: Collection, report: dict[str, Any], path: Path) -> None:
    """Plots the mean 48 x 48 image of each class, which is sharp if the faces are aligned."""
    labels, counts = np.unique(data.labels, return_counts=True)
    means = np.array([data.small[data.labels == k].mean(axis=0) for k in labels])
    scaled = 255 * (means - means.min()) / max(np.ptp(means), 1)
    captions = [f"{EMOTIONS[k]} ({count:,})" for k, count in zip(labels, counts, strict=True)]
    plotting.plot_faces(scaled, captions, "The mean image of each class", path)


def pixels(data: Collection, report: dict[str, Any], path: Path) -> None:
    """Plots histograms: mean and std of images by class, and pixel values by split."""
    figure, (brightness, contrast, values) = plotting.new_figure(13, 3.8, columns=3)
    for axes, numbers, top in ((brightness, data.mean, 1.0), (contrast, data.std, 0.5)):
        bins = np.linspace(0, top, 33)
        for k in np.unique(data.labels):
            chosen = numbers[data.labels == k]
            shares = 100 * np.histogram(chosen, bins)[0] / len(chosen)
            axes.stairs(shares, bins, label=EMOTIONS[k], color=_CLASS_COLORS[k], linewidth=1.5)
        axes.set_ylabel("images of the class in %")
    edges = np.arange(0, 257, 4)
    for s, name in enumerate(data.split_names):
        counts = np.bincount(data.small[data.splits == s].ravel(), minlength=256)
        shares = 100 * np.add.reduceat(counts, edges[:-1]) / counts.sum()
        values.stairs(shares, edges / 256, label=name, color=COLORS[name], linewidth=1.5)
    values.set_ylabel("pixels of the split in %")
    titles = ("brightness: mean of an image", "contrast: std of an image", "pixel values")
    for axes, title in zip((brightness, contrast, values), titles, strict=True):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
    plotting.save(figure, path)


def flattest(data: Collection, report: dict[str, Any], path: Path) -> None:
    """Plots the images with the smallest std; identical images once."""
    order = np.argsort(data.std, kind="stable")
    copies = np.bincount(data.groups)
    chosen = order[np.sort(np.unique(data.groups[order], return_index=True)[1])][:_SHOWN]
    captions = []
    for i in chosen.tolist():
        times = f" (1 of {n})" if (n := copies[data.groups[i]]) > 1 else ""
        name = data.ids[i] if len(data.ids[i]) <= 22 else "…" + data.ids[i][-21:]
        captions.append(f"{EMOTIONS[data.labels[i]]}{times}\nstd {data.std[i]:.3f}\n{name}")
    plotting.plot_faces(data.small[chosen], captions, "The images with the least contrast", path)


def conflicts(data: Collection, report: dict[str, Any], path: Path) -> None:
    """Plots an image of each group of identical images with different labels."""
    groups = [g["images"] for g in report["identical"]["members"] if g["conflict"]]
    if not groups:
        return
    shown = sorted(groups, key=len, reverse=True)[:_SHOWN]
    captions = []
    for images in shown:
        lines = _label_lines(images)
        captions.append("\n".join([*lines[:3], *(["..."] if len(lines) > 3 else [])]))
    chosen = [data.ids.index(images[0]["id"]) for images in shown]
    title = f"Identical images, different labels (groups: {len(groups):,})"
    plotting.plot_faces(data.small[chosen], captions, title, path)


def _label_lines(images: list[dict[str, str]]) -> list[str]:
    """Returns lines such as "2 x sad (train)", the most frequent first."""
    pairs = [(image["label"], image["split"]) for image in images]
    unique = sorted(set(pairs), key=lambda pair: (-pairs.count(pair), pair))
    return [f"{pairs.count(pair)} x {pair[0]} ({pair[1]})" for pair in unique]


def near_duplicates(data: Collection, report: dict[str, Any], path: Path) -> None:
    """Plots pairs, evenly spaced over those in the report; no image occurs twice."""
    index = {name: i for i, name in enumerate(data.ids)}
    pairs, seen = [], set()
    for pair in report["near"]["closest"]:
        both = {int(data.groups[index[image["id"]]]) for image in pair["images"]}
        if not both & seen:
            pairs.append(pair)
            seen |= both
    if not pairs:
        return
    shown = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, _SHOWN).astype(int))]
    captions, wrong = [], []
    for pair in shown:
        texts = [f"{image['label']}\n{image['split']}" for image in pair["images"]]
        captions += [f"{texts[0]}, {pair['correlation']:.3f}", texts[1]]
        wrong += [pair["images"][0]["label"] != pair["images"][1]["label"]] * 2
    faces = data.small[[index[image["id"]] for pair in shown for image in pair["images"]]]
    count = report["near"]["pairs"]
    title = f"Pairs of near duplicates and their correlation (pairs: {count:,}; red: labels differ)"
    plotting.plot_faces(faces, captions, title, path, wrong=wrong)
