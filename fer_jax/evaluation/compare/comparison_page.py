"""Writes the report of a comparison, compare.md, and its figures."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax import tables
from fer_jax.evaluation.compare import comparison_plots, significance
from fer_jax.io_utils import write_atomically, write_json

ALPHA = 0.05  # significance level
FOREST, PARETO = "accuracy.png", "latency.png"


def write(out_dir: os.PathLike | str, found: dict[str, Any]) -> None:
    """Writes compare.md, compare.json, and figures of a `significance.compare` to a folder, which it creates.

    Raises:
      OSError: `out_dir` cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    draw(out_dir, found)
    write_atomically(out_dir / "compare.md", render("compare.md.j2", found=found).encode())
    write_json(out_dir / "compare.json", found, sort_keys=False)


def draw(out_dir: pathlib.Path, found: dict[str, Any]) -> None:
    """Plots the figures of a comparison; removes those that do not apply."""
    comparison_plots.plot_accuracies(found, out_dir / FOREST)
    if found["front"]:
        comparison_plots.plot_pareto(found, out_dir / PARETO)
    else:
        (out_dir / PARETO).unlink(missing_ok=True)


def render(name: str, **values: Any) -> str:
    """Renders a template of comparisons."""
    formats = (difference, latency, mega, p_value, pair_matrix, parameters, significance.images_of, training)
    known = {format.__name__: format for format in formats}
    return tables.render(__package__, name, alpha=ALPHA, **known, **values)


def summary(found: dict[str, Any]) -> list[str]:
    """Returns a summary of a comparison for the console, line by line."""
    width = max(len(row["name"]) for row in found["models"])
    lines = [
        significance.images_of(found),
        "",
        f"  {'':{width}}  accuracy, 95 %          macro F1, 95 %          ECE",
    ]
    for row in significance.best_first(found):
        cells = (f"{tables.percent(row, key):22}" for key in ("accuracy", "macro_f1", "ece"))
        lines.append(f"  {row['name']:{width}}  {'  '.join(cells)}".rstrip())
    if pairs := found["pairs"]:
        clear = sum(row["mcnemar_holm"] < ALPHA for row in pairs)
        return [*lines, "", f"{clear} of {len(pairs)} pairs differ (McNemar, adjusted p < {ALPHA})"]
    return [*lines, "", "only one model: nothing to compare"]


def parameters(row: dict[str, Any]) -> str:
    """Returns a model's number of parameters in millions, "" if unknown."""
    return "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M"


def mega(number: int | None) -> str:
    """Returns a number in millions, without a unit; "" for None."""
    return "" if number is None else f"{number / 1e6:,.0f}" if number >= 1e7 else f"{number / 1e6:.2g}"


def latency(row: dict[str, Any]) -> str:
    """Returns a model's latency in milliseconds with quartiles, "" if unknown."""
    found = row["latency"]
    if not found:
        return ""
    return f"{found['milliseconds']:.2f} ({tables.interval(found['quartiles_milliseconds'], 2)})"


def training(row: dict[str, Any]) -> str:
    """Returns a model's training hardware and time, "" if unknown."""
    run = row["run"] or {}
    minutes = f"{run['seconds'] / 60:,.0f} min" if run.get("seconds") is not None else ""
    return ", ".join(filter(None, (run.get("hardware"), minutes)))


def difference(row: dict[str, Any], sign: int = 1) -> str:
    """Returns a difference in points with its interval, negated if `sign` is -1."""
    low, high = sorted(100 * sign * end for end in row["interval_95"])
    return f"{100 * sign * row['difference']:+.2f} ({low:+.1f} to {high:+.1f})"


def pair_matrix(found: dict[str, Any], models: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the matrix of accuracy differences, row's model minus column's."""
    cells = {}
    for row in found["pairs"]:
        bold = "**" if row["mcnemar_holm"] < ALPHA else ""
        for names, sign in (((row["first"], row["second"]), 1), ((row["second"], row["first"]), -1)):
            cells[names] = f"{bold}{difference(row['accuracy'], sign)}{bold}"
    names = [row["name"] for row in models]
    return [[tables.md(first), *(cells.get((first, second), "") for second in names)] for first in names]


def p_value(value: float, least: float = 1e-300) -> str:
    """Formats a p-value; `least` is the smallest that can be distinguished from 0."""
    if value <= least:
        return f"< {least:.0e}" if least < 0.001 else f"<= {least:.3f}"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
