"""compare.md and its pictures, from what `comparison.compare` gives."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_jax.evaluation import plots
from fer_jax.evaluation.comparison import FIGURES
from fer_jax.files import write_atomically

LEVEL = 0.05  # of the tests
FOREST, PARETO = "accuracy.png", "latency.png"


def write(out_dir: os.PathLike | str, found: dict[str, Any]) -> None:
    """Writes compare.md, compare.json and the pictures.

    Args:
      out_dir: made here if need be.
      found: from `comparison.compare`.

    Raises:
      OSError: `out_dir` cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    draw(out_dir, found)
    lines = [f"# {len(found['models'])} models on {_images(found)}", "", *sections(found, "")]
    write_atomically(out_dir / "compare.md", ("\n".join(lines) + "\n").encode())
    write_atomically(out_dir / "compare.json", (json.dumps(found, indent=2) + "\n").encode())


def draw(out_dir: pathlib.Path, found: dict[str, Any]) -> None:
    """Draws the pictures of a comparison; one that has nothing to show is removed."""
    plot_accuracies(found, out_dir / FOREST)
    if _measured(found):
        plot_pareto(found, out_dir / PARETO)
    else:
        (out_dir / PARETO).unlink(missing_ok=True)


def sections(found: dict[str, Any], pictures: str) -> list[str]:
    """The lines of a comparison below its title.

    Args:
      found: from `comparison.compare`.
      pictures: what stands before a picture's name: "" or a folder with a slash.
    """
    lines = [
        f"{_images(found)}, best first. In percent, in brackets 95 % intervals by the bootstrap over "
        f"{found['bootstrap']['unit']}. {_copies(found)}",
        "",
        *table(found),
        "",
        "ECE: expected calibration error. MFLOPs: millions of floating-point operations of a face's "
        "forward pass, "
        "two for each multiply-add. Milliseconds: median over single faces, in brackets the quartiles. "
        "Empty: not known.",
        "",
        f"![Accuracies]({pictures}{FOREST})",
    ]
    if hardware := _measured(found):
        lines += ["", f"![Accuracy and latency]({pictures}{PARETO})", "", *_fronts(found, hardware)]
    if found["seeds"]:
        lines += [
            "",
            "## Seeds",
            "",
            "Runs that differ only in the seed: mean ± standard deviation (values).",
            "",
        ]
        lines += _seeds(found)
    if found["pairs"]:
        lines += ["", "## Pairs", "", *_pairs(found)]
    return lines


def summary(found: dict[str, Any]) -> list[str]:
    """The lines of a comparison for the console."""
    width = max(len(row["name"]) for row in found["models"])
    lines = [_images(found), "", f"  {'':{width}}  accuracy, 95 %          macro F1, 95 %          ECE"]
    for row in best_first(found):
        cells = (f"{percent(row, key):22}" for key in ("accuracy", "macro_f1", "ece"))
        lines.append(f"  {row['name']:{width}}  {'  '.join(cells)}".rstrip())
    clear = [row for row in found["pairs"] if row["mcnemar_holm"] < LEVEL]
    lines += ["", f"{len(clear)} of {len(found['pairs'])} pairs differ (McNemar, adjusted p < {LEVEL})"]
    return lines


def table(found: dict[str, Any]) -> list[str]:
    """The lines of the table of all models, best first."""
    head = (
        "model", "accuracy", "macro F1", "accuracy without identical copies", "without near copies", "ECE",
        "parameters", "MFLOPs", "milliseconds", "training", "notes",
    )  # fmt: skip
    return markdown(head, [_row(row) for row in best_first(found)])


def best_first(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The models by accuracy."""
    return sorted(found["models"], key=lambda row: -row["accuracy"])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    notes = [f"{row['tta']} TTA"] if row["tta"] not in (None, "none") else []
    return (
        row["name"],
        percent(row, "accuracy"),
        percent(row, "macro_f1"),
        percent(row["without_identical"], "accuracy"),
        percent(row["without_near"], "accuracy"),
        percent(row, "ece"),
        parameters(row),
        mega(row["flops"]),
        latency(row),
        training(row),
        "; ".join(notes + row["notes"]),
    )


def percent(part: dict[str, Any] | None, key: str) -> str:
    """A figure and its interval in percent, "" of None."""
    if part is None:
        return ""
    low, high = part["interval_95"][key]
    return f"{100 * part[key]:.2f} ({100 * low:.1f} - {100 * high:.1f})"


def parameters(row: dict[str, Any]) -> str:
    """In millions, "" where they are not known."""
    return "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M"


def mega(number: int | None) -> str:
    """In millions without the word, "" of None."""
    return "" if number is None else f"{number / 1e6:,.0f}" if number >= 1e7 else f"{number / 1e6:.2g}"


def latency(row: dict[str, Any]) -> str:
    """In milliseconds, with the quartiles, "" where it is not known."""
    if not row["latency"]:
        return ""
    low, high = row["latency"]["quartiles_milliseconds"]
    return f"{row['latency']['milliseconds']:.2f} ({low:.2f} - {high:.2f})"


def training(row: dict[str, Any]) -> str:
    """How long the training took, and where, "" where it is not known."""
    run = row["run"] or {}
    minutes = f"{run['seconds'] / 60:,.0f} min" if run.get("seconds") is not None else ""
    return ", ".join(filter(None, (run.get("hardware"), minutes)))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _images(found: dict[str, Any]) -> str:
    split = f" of `{found['split']}`" if found["split"] else ""
    return f"{found['num_examples']:,} images{split}"


def _copies(found: dict[str, Any]) -> str:
    counts = found["copies"]
    if counts is None:
        return "Whether images have copies in the training is not known."
    return (
        f"{counts['identical']:,} images stand pixel for pixel among those of a training or selection, "
        f"{counts['near']:,} more nearly so; the accuracies without them leave them out for all models."
    )


def _measured(found: dict[str, Any]) -> list[str]:
    """The hardware that latencies were measured on."""
    return list(dict.fromkeys(row["latency"]["hardware"] for row in found["models"] if row["latency"]))


def _fronts(found: dict[str, Any], hardware: Sequence[str]) -> list[str]:
    lines = []
    for name in hardware:
        front = ", ".join(found["front"][name])
        lines.append(f"- {name}: the front, with none both faster and more accurate, is {front}.")
    return lines


def _seeds(found: dict[str, Any]) -> list[str]:
    names = {"macro_f1": "macro F1", "ece": "ECE", "balanced_accuracy": "balanced accuracy"}
    kept = [key for key in FIGURES if key not in ("loss", "brier")]
    rows = []
    for group in found["seeds"]:
        seeds = ", ".join(map(str, group["seeds"]))
        cells = []
        for key in kept:
            values = ", ".join(f"{100 * value:.2f}" for value in group[key]["values"])
            cells.append(f"{100 * group[key]['mean']:.2f} ± {100 * group[key]['std']:.2f} ({values})")
        rows.append((group["name"], seeds, *cells))
    return markdown(("runs", "seeds", *(names.get(key, key) for key in kept)), rows)


def _pairs(found: dict[str, Any]) -> list[str]:
    names = [row["name"] for row in best_first(found)]
    cells = {}
    for row in found["pairs"]:
        low, high = row["accuracy"]["interval_95"]
        star = "**" if row["mcnemar_holm"] < LEVEL else ""
        for first, second, sign in ((row["first"], row["second"], 1), (row["second"], row["first"], -1)):
            ends = sorted((100 * sign * low, 100 * sign * high))
            apart = 100 * sign * row["accuracy"]["difference"]
            cells[first, second] = f"{star}{apart:+.2f} ({ends[0]:+.1f} to {ends[1]:+.1f}){star}"
    matrix = [(first, *(cells.get((first, second), "") for second in names)) for first in names]
    rows = [
        (
            row["first"],
            row["second"],
            f"{row['only_first']:,}",
            f"{row['only_second']:,}",
            _p(row["mcnemar"]),
            _p(row["mcnemar_holm"]),
            _p(row["accuracy"]["p"]),
            "{:+.2f} ({:+.1f} to {:+.1f})".format(
                *(100 * x for x in (row["macro_f1"]["difference"], *row["macro_f1"]["interval_95"]))
            ),
        )
        for row in found["pairs"]
    ]
    count = len(found["pairs"])
    return [
        "How many points of accuracy the row's model is above the column's, with the 95 % interval of "
        "the paired "
        f"bootstrap over {found['bootstrap']['unit']}; in bold where McNemar's exact test, adjusted, "
        "gives p < "
        f"{LEVEL}.",
        "",
        *markdown(("", *names), matrix),
        "",
        *markdown(
            (
                "first", "second", "only first right", "only second right", "McNemar p", "adjusted p",
                "bootstrap p", "macro F1, first - second",
            ),
            rows,
        ),
        "",
        f"The more comparisons ({count} here), the likelier a p below {LEVEL} by chance alone; the adjusted "
        f"p (Holm) keeps the chance of even one such false alarm below {LEVEL}. The intervals are not "
        "adjusted. McNemar's test takes every image as evidence of its own, the bootstrap a group of "
        "identical images as one. Neither tells what another training would give: for that, train several "
        "seeds.",
    ]  # fmt: skip


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def plot_accuracies(found: dict[str, Any], path: pathlib.Path) -> Figure:
    """Every model's accuracy with its interval, and that without near copies; best at the top."""
    rows = best_first(found)[::-1]
    figure, axis = plots.new_figure(8.5, 1.5 + 0.42 * max(len(rows), 2))
    places = np.arange(len(rows))
    kinds = ((0.13, "C0", "o", "all images", rows),)
    if any(row["without_near"] for row in rows):
        kinds += ((-0.13, "C1", "s", "without near copies", [row["without_near"] for row in rows]),)
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
    axis.set_title(f"Accuracy on {_images(found).replace('`', '')}", loc="left", fontsize=11)
    axis.grid(axis="x", alpha=0.3)
    if len(kinds) > 1:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    return figure


def plot_pareto(found: dict[str, Any], path: pathlib.Path) -> Figure:
    """Accuracy against latency with their intervals, and the front: what no other beats in both."""
    figure, axis = plots.new_figure(8, 5.2)
    by_name, labels = {row["name"]: row for row in found["models"]}, []
    for number, hardware in enumerate(_measured(found)):
        rows = [r for r in found["models"] if r["latency"] and r["latency"]["hardware"] == hardware]
        front = [by_name[name] for name in found["front"][hardware]]
        color = f"C{number}"
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
        # To the right the front goes on as it ends: whatever is slower and no better lies below it.
        axis.plot([*steps_x, 1.35 * x.max()], [*steps_y, steps_y[-1]], color=color, linestyle="--",
                  linewidth=1, drawstyle="steps-post")  # fmt: skip
        labels += [(row["name"], at) for row, *at in zip(rows, x, y, strict=True)]
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "2357" else "")
    axis.set(xlabel="milliseconds a face (median and quartiles)", ylabel="accuracy in percent, 95 % interval")
    images = _images(found).replace("`", "")
    axis.set_title(f"Accuracy and latency on {images} (dashed: the front)", loc="left", fontsize=11)
    axis.margins(x=0.12)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower right", ncols=2, fontsize=9, frameon=False)
    figure.draw_without_rendering()  # which settles where things are
    _write_beside(axis, labels)
    figure.savefig(path, dpi=110)
    return figure


def _write_beside(axis: Axes, labels: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Writes each label beside its point (x, y), where it covers no other and stays inside if it can."""
    renderer, taken = axis.figure.canvas.get_renderer(), []
    for text, point in labels:
        for x, y in ((6, 5), (-6, 5), (6, -12), (-6, -12)):
            side = "left" if x > 0 else "right"
            style = {"textcoords": "offset points", "fontsize": 9, "ha": side}
            note = axis.annotate(text, point, (x, y), **style)
            box, frame = note.get_window_extent(renderer), axis.get_window_extent(renderer)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            note.remove()
        else:
            note = axis.annotate(text, point, (6, 5), textcoords="offset points", fontsize=9)
            box = note.get_window_extent(renderer)
        taken.append(box)
