"""Figures of robustness; each plot function writes one to `path` as PNG and returns it."""

import pathlib
from typing import Any

import numpy as np

from fer_jax import plotting
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES


def plot_curves(report: dict[str, Any], path: pathlib.Path) -> "plotting.Figure":
    """Plots accuracy by severity, a panel per corruption, from `degradation.figures`."""
    columns = 4
    rows = -(-len(CORRUPTIONS) // columns)
    figure, axes = plotting.new_figure(13, 2.75 * rows + 0.4, rows, columns, sharey=True, squeeze=False)
    clean = report["clean"]
    for axis, (name, found) in zip(axes.flat, report["corruptions"].items(), strict=False):
        points = [clean, *found["severities"]]
        places = [0, *SEVERITIES]
        accuracy = [point["accuracy"] for point in points]
        low, high = zip(*(point["interval_95"] for point in points), strict=True)
        axis.axhline(clean["accuracy"], color="0.5", linestyle="--", linewidth=1)
        axis.fill_between(places, low, high, color="C0", alpha=0.2, linewidth=0)
        axis.plot(places, accuracy, color="C0", marker="o", markersize=4)
        corruption = CORRUPTIONS[name]
        axis.set_xticks(places, ["clean", *(f"{level:.3g}" for level in corruption.levels)])
        axis.set_title(f"{corruption.title}: {100 * found['kept']['value']:.0f} % retained", fontsize=11)
        axis.set_xlabel(corruption.level, fontsize=9)
        axis.tick_params(labelsize=9)
        axis.set_ylim(0, min(1, clean["accuracy"] * 1.25 + 0.02))
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    for axis in axes.flat[len(CORRUPTIONS) :]:
        axis.axis("off")
    figure.suptitle(
        "Accuracy by severity (dashed: clean; shaded: 95 % interval; titles: ratio of the mean over "
        "severities to the clean accuracy)",
        fontsize=11,
    )
    return plotting.save(figure, path, dpi=100)


def plot_summary(report: dict[str, Any], path: pathlib.Path) -> "plotting.Figure":
    """Plots the mean accuracy of each corruption over severities, the worst at the bottom."""
    figure, axis = plotting.new_figure(9, 0.32 * len(CORRUPTIONS) + 1.6)
    found = sorted(report["corruptions"].items(), key=lambda item: item[1]["mean"]["value"])
    values = np.array([of["mean"]["value"] for _, of in found])
    between = np.array([of["mean"]["interval_95"] for _, of in found]).T
    errors = abs(between - values)
    axis.barh(range(len(found)), values, xerr=errors, color="C0", ecolor="0.25", capsize=2.5, height=0.7)
    on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axis.set_yticks(range(len(found)), [CORRUPTIONS[name].title for name, _ in found])
    for place, (value, high, (_, of)) in enumerate(zip(values, between[1], found, strict=True)):
        text = f"{value:.3f}  {100 * of['kept']['value']:.0f} % retained"
        axis.text(high + 0.008, place, text, va="center", fontsize=9, bbox=on_white)
    clean, mean = report["clean"]["accuracy"], report["mean_corruption_accuracy"]["value"]
    axis.axvline(clean, color="0.4", linestyle="--", linewidth=1, label=f"clean {clean:.3f}")
    axis.axvline(mean, color="C3", linestyle=":", linewidth=1.5, label=f"mean of all corruptions {mean:.3f}")
    axis.set(xlabel="mean accuracy over five severities (bars: 95 % interval)")
    axis.set_xlim(0, max(clean, between[1].max()) + 0.17)
    axis.set_ylim(-0.6, len(found) - 0.4)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    return plotting.save(figure, path)
