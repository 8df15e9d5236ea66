"""Figures of an evaluation; each plot function writes one to `path` as PNG and returns it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import plotting
from fer_jax.plotting import new_figure, save


def draw_confusion(
    axis: "plotting.Axes", matrix: np.ndarray, names: Sequence[str], *, percent: bool = False
) -> "plotting.AxesImage":
    """Plots a confusion matrix int [K, K] (rows: true class), shaded by the share of the true class.

    Its cells have image counts or, if `percent`, shares.

    Returns:
      The image of shares in [0, 1], for a color bar.
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


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: pathlib.Path) -> "plotting.Figure":
    """Plots a confusion matrix int [K, K] (rows: true class) twice: counts, and row percentages."""
    figure, (left, right) = new_figure(12.5, 5.6, columns=2)
    draw_confusion(left, matrix, names)
    left.set_title("Images")
    picture = draw_confusion(right, matrix, names, percent=True)
    right.set_title("Percent of the true class")
    bar = figure.colorbar(picture, ax=[left, right], format=lambda v, _: f"{v:.0%}", shrink=0.85)
    bar.set_label("share of the true class (both plots)")
    return save(figure, path)


def plot_reliability(report: dict[str, Any], path: pathlib.Path) -> "plotting.Figure":
    """Plots a reliability diagram with a histogram of confidences, from `report.figures`.

    The report has 'calibrated' if there is a temperature.
    """
    ece, accuracy, calibrated = report["ece"], report["accuracy"], report.get("calibrated")
    figure, (top, bottom) = new_figure(6.4, 7.2, rows=2, sharex=True, height_ratios=(3, 1))
    table, filled = _filled_bins(report["reliability"])
    edges = np.linspace(0, 1, len(filled) + 1)
    middle, width = (edges[1:] + edges[:-1]) / 2, 0.92 / len(filled)
    top.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1, label="perfectly calibrated")
    top.bar(middle[filled], table["accuracy"][filled], width, color="C0", label="accuracy of the bin")
    style = {"color": "C3", "markersize": 17, "markeredgewidth": 2.5}
    label = "mean confidence of the bin"
    top.plot(middle[filled], table["confidence"][filled], "_", label=label, **style)
    if calibrated:
        after, some = _filled_bins(calibrated["reliability"])
        points = 100 * calibrated["ece"]
        label = f"with temperature {calibrated['temperature']:.2f} (ECE {points:.1f} points)"
        style = {"color": "C2", "marker": "o", "markersize": 4, "linewidth": 1.2}
        top.plot(after["confidence"][some], after["accuracy"][some], label=label, **style)
    mean = np.average(table["confidence"], weights=table["count"])
    verdict = "over-confident" if mean > accuracy else "under-confident"
    if abs(mean - accuracy) < 1.96 * np.sqrt(accuracy * (1 - accuracy) / table["count"].sum()):
        verdict = "no clear difference"
    top.set_title(
        f"ECE {100 * ece:.1f} points\n"
        f"mean confidence {100 * mean:.1f} %, accuracy {100 * accuracy:.1f} %: {verdict}"
    )
    top.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)  # outside the plot
    bottom.bar(middle, table["count"], width, color="0.6")
    bottom.set(xlabel="confidence (highest probability)", ylabel="images")
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
    return save(figure, path)


def _filled_bins(reliability: dict[str, Sequence[float]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    table = {key: np.array(values) for key, values in reliability.items()}
    return table, table["count"] > 0


def plot_per_class(
    per_class: dict[str, dict[str, Any]], macro_f1: float, path: pathlib.Path
) -> "plotting.Figure":
    """Plots precision, recall, and F1 of each class with intervals, from `report.figures`."""
    names, rows = list(per_class), list(per_class.values())
    figure, axis = new_figure(10, 4.8)
    place = np.arange(len(names))
    for i, (key, label) in enumerate((("precision", "precision"), ("recall", "recall"), ("f1", "F1"))):
        values = np.array([row[key] for row in rows])
        low, high = np.array([row["interval_95"][key] for row in rows]).T
        # All resamples may be on one side of the metric.
        error = np.maximum([values - low, high - values], 0)
        whiskers = {"ecolor": "0.35", "elinewidth": 1}
        style = {"error_kw": whiskers, "label": label, "color": f"C{i}"}
        bars = axis.bar(place + (i - 1) * 0.27, values, 0.25, yerr=error, **style)
        # On white, because the macro F1 line would cross them.
        on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axis.bar_label(bars, [f"{v:.2f}" for v in values], fontsize=8, padding=2, bbox=on_white)
    axis.axhline(macro_f1, color="0.4", linestyle="--", linewidth=1)
    labels = [f"{name}\n{row['support']:,} images" for name, row in per_class.items()]
    axis.set_xticks(place, labels)
    axis.set(ylabel="score", ylim=(0, 1.08), xlim=(-0.55, len(names) - 0.45))
    axis.set_title(f"Scores by class (dashed: macro F1 {macro_f1:.3f})", loc="left")
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    return save(figure, path)


def plot_risk_coverage(report: dict[str, Any], path: pathlib.Path) -> "plotting.Figure":
    """Plots accuracy against coverage, from `report.figures`."""
    figure, axis = new_figure(7, 4.6)
    draw_risk_coverage(axis, report)
    axis.set_title(f"Abstaining below a confidence threshold (AURC {report['aurc']:.3f})", loc="left")
    return save(figure, path)


def draw_risk_coverage(axis: "plotting.Axes", report: dict[str, Any]) -> None:
    """Plots the curve of `plot_risk_coverage`."""
    curve = report["risk_coverage"]
    axis.plot(curve["coverage"], 1 - np.array(curve["risk"]), color="C0", label="most confident first")
    style = {"color": "0.4", "linestyle": "--", "linewidth": 1}
    axis.axhline(report["accuracy"], label="random selection", **style)
    for row in report["selective"]:
        axis.plot(row["coverage"], row["accuracy"], "o", color="C0", markersize=4)
        if row["coverage"] < 0.999:
            note = f"≥ {row['threshold']:.2f}"
            where = (row["coverage"], row["accuracy"])
            axis.annotate(note, where, (4, 5), textcoords="offset points", fontsize=8)
    axis.set(xlabel="coverage (share of images answered)", ylabel="accuracy", xlim=(0, 1.06))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
