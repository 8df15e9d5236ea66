"""Writes metrics by subgroup, next to the report."""

import os
import pathlib
from typing import Any

import numpy as np

from fer_jax import plotting, tables
from fer_jax.evaluation.metrics import subgroups
from fer_jax.io_utils import write_atomically, write_json


def write(out_dir: os.PathLike | str, found: dict[str, Any]) -> None:
    """Writes subgroups.png, subgroups.md, and subgroups.json from the result of `subgroups.compare`.

    Raises:
      OSError: `out_dir` cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    plot(found, out_dir / "subgroups.png")
    name = pathlib.Path(found["table"]).name
    known = {"metrics": subgroups.METRICS, "min_images": subgroups.MIN_IMAGES}
    page = tables.render(__package__, "subgroups.md.j2", found=found, name=name, **known)
    write_atomically(out_dir / "subgroups.md", page.encode())
    write_json(out_dir / "subgroups.json", found, sort_keys=False, ensure_ascii=False)


def plot(found: dict[str, Any], path: pathlib.Path) -> "plotting.Figure":
    """Plots subgroups with intervals, a row per attribute and a panel per metric."""
    attributes = found["attributes"]
    counts = [max(len(of["groups"]), 1) for of in attributes.values()]
    figure, axes = plotting.new_figure(
        13,
        sum(0.34 * count + 0.9 for count in counts) + 0.3,
        len(counts),
        len(subgroups.METRICS),
        squeeze=False,
        height_ratios=[count + 1.2 for count in counts],
    )
    for row, (attribute, of) in zip(axes, attributes.items(), strict=True):
        places = np.arange(len(of["groups"]))
        for axis, (metric, name) in zip(row, subgroups.METRICS.items(), strict=True):
            for place, group in zip(places, of["groups"].values(), strict=True):
                color = "C0" if group["n"] >= subgroups.MIN_IMAGES else "0.6"
                axis.plot(group["interval_95"][metric], [place, place], color=color, linewidth=2)
                axis.plot(group[metric], place, "o", color=color)
            axis.set_title(name, fontsize=10)
            axis.set_ylim(len(places) - 0.5, -0.5)
            axis.set_yticks(places, [])
            axis.grid(alpha=0.3)
        short = [value if len(value) <= 24 else value[:23] + "…" for value in of["groups"]]
        sizes = [group["n"] for group in of["groups"].values()]
        row[0].set_yticks(places, [f"{value} ({n:,})" for value, n in zip(short, sizes, strict=True)])
        row[0].set_ylabel(attribute, fontsize=11, weight="bold")
    small = f"; gray: fewer than {subgroups.MIN_IMAGES} images"
    figure.suptitle(f"By subgroup, with 95 % intervals (in parentheses: images{small})", fontsize=11)
    return plotting.save(figure, path, dpi=100)
