"""compare.md and its pictures, from what `significance.compare` gives."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax import tables
from fer_jax.evaluation.compare import comparison_plots, significance
from fer_jax.evaluation.compare.significance import FIGURES
from fer_jax.io_utils import write_atomically

LEVEL = 0.05  # of the tests
FOREST, PARETO = "accuracy.png", "latency.png"


def write(out_dir: os.PathLike | str, found: dict[str, Any]) -> None:
    """Writes compare.md, compare.json and the pictures.

    Args:
      out_dir: made here if need be.
      found: from `significance.compare`.

    Raises:
      OSError: `out_dir` cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    draw(out_dir, found)
    lines = [f"# {len(found['models'])} models on {significance.images_of(found)}", "", *sections(found, "")]
    write_atomically(out_dir / "compare.md", ("\n".join(lines) + "\n").encode())
    write_atomically(out_dir / "compare.json", (json.dumps(found, indent=2) + "\n").encode())


def draw(out_dir: pathlib.Path, found: dict[str, Any]) -> None:
    """Draws the pictures of a comparison; one that has nothing to show is removed."""
    comparison_plots.plot_accuracies(found, out_dir / FOREST)
    if significance.hardware_of(found):
        comparison_plots.plot_pareto(found, out_dir / PARETO)
    else:
        (out_dir / PARETO).unlink(missing_ok=True)


def sections(found: dict[str, Any], pictures: str) -> list[str]:
    """The lines of a comparison below its title.

    Args:
      found: from `significance.compare`.
      pictures: what stands before a picture's name: "" or a folder with a slash.
    """
    lines = [
        f"{significance.images_of(found)}, best first. In percent, in brackets 95 % intervals by the "
        f"bootstrap over {found['bootstrap']['unit']}. {_copies(found)}",
        "",
        *table(found),
        "",
        "ECE: expected calibration error, before any temperature. MFLOPs: millions of floating-point "
        "operations of a face's forward pass, two for each multiply-add. Milliseconds: median over single "
        "faces, in brackets the quartiles. Empty: not known.",
        "",
        f"![Accuracies]({pictures}{FOREST})",
    ]
    if hardware := significance.hardware_of(found):
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
    lines = [
        significance.images_of(found),
        "",
        f"  {'':{width}}  accuracy, 95 %          macro F1, 95 %          ECE",
    ]
    for row in significance.best_first(found):
        cells = (f"{percent(row, key):22}" for key in ("accuracy", "macro_f1", "ece"))
        lines.append(f"  {row['name']:{width}}  {'  '.join(cells)}".rstrip())
    if pairs := found["pairs"]:
        clear = sum(row["mcnemar_holm"] < LEVEL for row in pairs)
        return [*lines, "", f"{clear} of {len(pairs)} pairs differ (McNemar, adjusted p < {LEVEL})"]
    return [*lines, "", "one model: there is nothing to compare it with"]


def table(found: dict[str, Any]) -> list[str]:
    """The lines of the table of all models, best first."""
    head = (
        "model", "accuracy", "macro F1", "accuracy without identical copies", "without near copies", "ECE",
        "parameters", "MFLOPs", "milliseconds", "training", "notes",
    )  # fmt: skip
    return tables.table(head, [_row(row) for row in significance.best_first(found)])


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


def _copies(found: dict[str, Any]) -> str:
    counts = found["copies"]
    if counts is None:
        return "Whether images have copies in the training is not known."
    return (
        f"{counts['identical']:,} images stand pixel for pixel among those of a training or selection, "
        f"{counts['near']:,} more nearly so; the accuracies without them leave them out for all models."
    )


def _fronts(found: dict[str, Any], hardware: Sequence[str]) -> list[str]:
    lines = []
    for name in hardware:
        front = ", ".join(found["front"][name])
        lines.append(f"- {name}: the front, with none both faster and more accurate, is {front}.")
    return lines


def _seeds(found: dict[str, Any]) -> list[str]:
    names = {"macro_f1": "macro F1", "ece": "ECE", "balanced_accuracy": "balanced accuracy"}
    names |= {key: f"accuracy {key.replace('_', ' ')} copies" for key in significance.LEAK_FREE}
    kept = [key for key in (*FIGURES, *significance.LEAK_FREE) if key not in ("loss", "brier")]
    rows = []
    for group in found["seeds"]:
        seeds = ", ".join(map(str, group["seeds"]))
        cells = []
        for key in kept:
            if key not in group:
                cells.append("")
                continue
            values = ", ".join(f"{100 * value:.2f}" for value in group[key]["values"])
            cells.append(f"{100 * group[key]['mean']:.2f} ± {100 * group[key]['std']:.2f} ({values})")
        rows.append((group["name"], seeds, *cells))
    return tables.table(("runs", "seeds", *(names.get(key, key) for key in kept)), rows)


def _pairs(found: dict[str, Any]) -> list[str]:
    names = [row["name"] for row in significance.best_first(found)]
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
            _p(row["accuracy"]["p"], 2 / found["bootstrap"]["resamples"]),
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
        *tables.table(("", *names), matrix),
        "",
        *tables.table(
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


def _p(value: float, least: float = 1e-300) -> str:
    """A p-value; `least` is the smallest that can be told from 0."""
    if value <= least:
        return f"< {least:.0e}" if least < 0.001 else f"<= {least:.3f}"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
