"""Figures of a comparison; each plot function writes one to `path` as PNG and returns it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from fer_jax import plotting
from fer_jax.evaluation.compare import significance


def plot_accuracies(found: dict[str, Any], path: pathlib.Path) -> Figure:
    """Plots the accuracy of each model, with and without near duplicates; best at the top."""
    rows = significance.best_first(found)[::-1]
    figure, axis = plotting.new_figure(8.5, 1.5 + 0.42 * max(len(rows), 2))
    places = np.arange(len(rows))
    kinds = ((0.13, "C0", "o", "all images", rows),)
    if any(row["without_near"] for row in rows):
        kinds += ((-0.13, "C1", "s", "without near duplicates", [row["without_near"] for row in rows]),)
    for shift, color, marker, label, parts in kinds:
        known = [(place, part) for place, part in zip(places, parts, strict=True) if part]
        values = np.array([100 * part["accuracy"] for _, part in known])
        low, high = 100 * np.array([part["interval_95"]["accuracy"] for _, part in known]).T
        error = np.maximum([values - low, high - values], 0)
        at = [place + shift for place, _ in known]
        style = {"color": color, "markersize": 5, "capsize": 2.5, "elinewidth": 1.4}
        axis.errorbar(values, at, xerr=error, fmt=marker, label=label, **style)
    axis.set_yticks(places, [row["name"] for row in rows])
    axis.set(xlabel="accuracy in percent, with 95 % intervals", ylim=(-0.6, len(rows) - 0.4))
    axis.set_title(f"Accuracy on {significance.images_of(found).replace('`', '')}", loc="left", fontsize=11)
    axis.grid(axis="x", alpha=0.3)
    if len(kinds) > 1:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    return plotting.save(figure, path)


def plot_pareto(found: dict[str, Any], path: pathlib.Path) -> Figure:
    """Plots accuracy against latency with intervals, and the Pareto front."""
    figure, axis = plotting.new_figure(8, 5.2)
    by_name, labels = {row["name"]: row for row in found["models"]}, []
    medians = [row["latency"]["milliseconds"] for row in found["models"] if row["latency"]]
    wide = max(medians) > 3 * min(medians)  # a narrow logarithmic axis has few ticks
    end = 1.35 * max(medians) if wide else max(medians) + 0.1 * np.ptp(medians)
    for number, (hardware, names) in enumerate(found["front"].items()):
        rows = [r for r in found["models"] if r["latency"] and r["latency"]["hardware"] == hardware]
        front, color = [by_name[name] for name in names], f"C{number}"
        x = np.array([row["latency"]["milliseconds"] for row in rows])
        y = 100 * np.array([row["accuracy"] for row in rows])
        quartiles = np.array([row["latency"]["quartiles_milliseconds"] for row in rows]).T
        low, high = 100 * np.array([row["interval_95"]["accuracy"] for row in rows]).T
        errors = {
            "xerr": np.maximum([x - quartiles[0], quartiles[1] - x], 0),
            "yerr": np.maximum([y - low, high - y], 0),
        }
        style = {"fmt": "o", "color": color, "markersize": 5, "capsize": 2.5, "elinewidth": 1.1}
        axis.errorbar(x, y, label=hardware, **errors, **style)
        steps_x = [row["latency"]["milliseconds"] for row in front]
        steps_y = [100 * row["accuracy"] for row in front]
        # The front extends to the right: models below it are slower and less accurate.
        axis.plot([*steps_x, end], [*steps_y, steps_y[-1]], color=color, linestyle="--",
                  linewidth=1, drawstyle="steps-post")  # fmt: skip
        labels += [(row["name"], at) for row, *at in zip(rows, x, y, strict=True)]
    if wide:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "2357" else "")
    axis.set(xlabel="ms per face (median and quartiles)", ylabel="accuracy in percent, 95 % interval")
    images = significance.images_of(found).replace("`", "")
    axis.set_title(f"Accuracy and latency on {images} (dashed: Pareto front)", loc="left", fontsize=11)
    axis.margins(x=0.12)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower right", ncols=2, fontsize=9, frameon=False)
    figure.draw_without_rendering()  # computes the layout
    _write_beside(axis, labels)
    return plotting.save(figure, path)


def _write_beside(axis: Axes, labels: Sequence[tuple[str, Any]]) -> None:
    """Labels points (x, y), if possible inside the axes without overlaps."""
    taken = [
        Bbox(at + np.array([[-3, -3], [3, 3]])) for at in axis.transData.transform([p for _, p in labels])
    ]
    for text, point in labels:
        for x, y in ((6, 5), (-6, 5), (6, -12), (-6, -12), (6, 16), (-6, 16), (6, -23), (-6, -23)):
            side = "left" if x > 0 else "right"
            style = {"textcoords": "offset points", "fontsize": 9, "ha": side}
            note = axis.annotate(text, point, (x, y), **style)
            box, frame = note.get_window_extent(), axis.get_window_extent()
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            note.remove()
        else:
            note = axis.annotate(text, point, (6, 5), textcoords="offset points", fontsize=9)
            box = note.get_window_extent()
        taken.append(box)
