"""The report on robustness: figures as JSON, a table as CSV, a page to read, pictures."""

import csv
import io
import json
import os
import pathlib
from typing import Any

import numpy as np

from fer_jax import tables
from fer_jax.data.faces import Faces
from fer_jax.evaluation import leakage, leakage_policy
from fer_jax.evaluation.robustness import degradation, robustness_plots
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fer_jax.io_utils import write_atomically
from fer_jax.pretrained.registry import network_name


def write_report(
    out_dir: os.PathLike | str,
    predictions: degradation.Predictions,
    faces: Faces,
    groups: np.ndarray | None,
    *,
    numbers: np.ndarray,
    seed: int,
    facts: dict[str, Any],
    copies: np.ndarray | None = None,
) -> dict[str, Any]:
    """Writes robustness.csv, the pictures, robustness.md and, last, robustness.json.

    Args:
      out_dir: a folder that exists; an older report in it is replaced.
      predictions: from `degradation.predict_all` with these `numbers` and this `seed`.
      faces: what was predicted.
      groups: as `degradation.figures` takes them.
      numbers: int [N], each face's own number.
      seed: of everything random.
      facts: JSON that the report repeats: 'model', 'emotions' (the classes), 'labels', 'checkpoint', 'split',
        'split_size' (how many faces that has), 'data', 'data_hash' and what `leakage_policy.judge` takes.
      copies: int8 [N], see `leakage.find_copies`, against the splits that had a part in the weights; None
        where it is not known.

    Returns:
      What robustness.json holds: the facts, `degradation.figures`, and in 'leak_free' the clean accuracy, the
      mean corruption accuracy and the share kept of the faces without identical and without near copies.

    Raises:
      ValueError: predictions that are no distributions.
      OSError: `out_dir` cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    report = facts | degradation.figures(predictions, faces.labels, groups) | {"seed": seed}
    report["note"] = leakage_policy.judge(facts, copies)["note"]
    report["leak_free"] = None if copies is None else _leak_free(predictions, faces.labels, groups, copies)
    report["unit"] = "images" if groups is None else "groups of identical images"
    for name in ("robustness.json", "robustness.md"):
        (out_dir / name).unlink(missing_ok=True)
    robustness_plots.plot_curves(report, out_dir / "robustness_curves.png")
    robustness_plots.plot_summary(report, out_dir / "robustness_summary.png")
    report["example"] = _draw_example(out_dir / "corruptions.png", predictions, faces, numbers, seed, facts)
    write_atomically(out_dir / "robustness.csv", _csv(report).encode())
    write_atomically(out_dir / "robustness.md", _page(report).encode())
    text = json.dumps(report, indent=2, sort_keys=True) + "\n"
    write_atomically(out_dir / "robustness.json", text.encode())
    return report


_SUMMARY = ("num_examples", "clean", "mean_corruption_accuracy", "kept")


def _leak_free(predictions, labels, groups, copies) -> dict[str, Any]:
    """For 'without_identical' and 'without_near' the figures of `_SUMMARY`, None where no face is left."""
    parts = {}
    for i, kind in reversed(list(enumerate(leakage.KINDS))[1:]):
        kept = copies < i
        found = None
        if kept.any():
            some = {key: probs[kept] for key, probs in predictions.items()}
            figures = degradation.figures(some, labels[kept], None if groups is None else groups[kept])
            found = {key: figures[key] for key in _SUMMARY}
        parts[f"without_{kind}"] = found
    return parts


def _draw_example(path, predictions, faces, numbers, seed, facts) -> str:
    """The sheet of one face, of those taken for what they are the one that is most surely; its id."""
    clean = predictions[degradation.CLEAN]
    own = np.where(clean.argmax(axis=1) == faces.labels, clean[np.arange(len(clean)), faces.labels], 0)
    chosen = int(own.argmax())
    image = faces.images[np.array([chosen])]

    def caption(key: str) -> str:
        row = predictions[key][chosen]
        return f"{facts['emotions'][row.argmax()]} {100 * row.max():.0f} %"

    def is_right(key: str) -> bool:
        return predictions[key][chosen].argmax() == faces.labels[chosen]

    corrupted, captions, right = {}, {}, {}
    for name in CORRUPTIONS:
        keys = [degradation.condition(name, severity) for severity in SEVERITIES]
        number = [numbers[chosen]]
        corrupted[name] = np.concatenate(
            [corrupt(image, name, severity, seed=seed, numbers=number) for severity in SEVERITIES]
        )
        captions[name], right[name] = [caption(key) for key in keys], [is_right(key) for key in keys]
    first = caption(degradation.CLEAN)
    robustness_plots.plot_sheet(image[0], first, corrupted, captions, right, path)
    return str(faces.ids[chosen])


def _csv(report: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["corruption", "severity", "level", "images", "accuracy", "low", "high", "macro_f1"])

    def row(name, severity, level, figure):
        numbers = (figure["accuracy"], *figure["interval_95"], figure["macro_f1"])
        writer.writerow([name, severity, level, report["num_examples"], *map(repr, numbers)])

    row(degradation.CLEAN, 0, "", report["clean"])
    for name, found in report["corruptions"].items():
        for severity, figure in zip(SEVERITIES, found["severities"], strict=True):
            row(name, severity, figure["level"], figure)
    return text.getvalue()


def _between(figure: dict[str, Any]) -> str:
    return "{:.3f} - {:.3f}".format(*figure["interval_95"])


def _summary_row(name: str, found: dict[str, Any]) -> list[str]:
    figures = (
        (found["clean"]["accuracy"], found["clean"]),
        *((found[key]["value"], found[key]) for key in ("mean_corruption_accuracy", "kept")),
    )
    cells = (f"{value:.3f} ({_between(figure)})" for value, figure in figures)
    return [name, f"{found['num_examples']:,}", *cells]


def _row(name: str, found: dict[str, Any]) -> list[str]:
    cells = [f"{figure['accuracy']:.3f}" for figure in found["severities"]]
    for figure in (found["mean"], found["kept"]):
        cells += [f"{figure['value']:.3f}", _between(figure)]
    return [CORRUPTIONS[name].title, *cells]


def _page(report: dict[str, Any]) -> str:
    """robustness.md."""
    mean = report["mean_corruption_accuracy"]
    severities = tuple(map(str, SEVERITIES))
    summary = [_summary_row("all", report)]
    for name, found in (report["leak_free"] or {}).items():
        summary += [_summary_row(f"{name.replace('_', ' ')} copies", found)] if found else []
    network = network_name(report["checkpoint"], report["model"])
    part = ""
    if report["num_examples"] < report["split_size"]:
        part = f", drawn from its {report['split_size']:,} in the classes' shares"
    lines = [
        f"# {network} on corrupted faces: {100 * mean['value']:.2f} % mean accuracy",
        "",
        f"{report['num_examples']:,} images of `{report['split']}` with labels `{report['labels']}`{part}. "
        "The weights are "
        f"`{report['checkpoint']}`.",
        "",
        f"**{report['note']}**",
        "",
        *tables.table(("faces", "number", "clean accuracy", "mean corruption accuracy", "kept"), summary),
        "",
        "In brackets 95 % intervals. Mean corruption accuracy: the mean over "
        f"{len(CORRUPTIONS)} corruptions and {len(SEVERITIES)} severities. Kept: its share of the clean "
        "accuracy. Copies: images that stand in a split that had a part in the weights, at least nearly so.",
        "",
        "## Corruptions",
        "",
        "Accuracy at each severity; *mean* over the severities with its 95 % interval; *kept*, that mean as "
        "a share of the clean accuracy.",
        "",
        *tables.table(
            ("corruption", *severities, "mean", "95 % interval", "kept", "95 % interval"),
            [_row(name, found) for name, found in report["corruptions"].items()],
        ),
        "",
        *tables.table(
            ("corruption", "what is varied", *severities),
            [(c.title, c.level, *(f"{level:.3g}" for level in c.levels)) for c in CORRUPTIONS.values()],
        ),
    ]
    pictures = (
        ("Summary", "robustness_summary.png"),
        ("Curves", "robustness_curves.png"),
        ("One face", "corruptions.png"),
    )
    for title, file in pictures:
        lines += ["", f"## {title}", "", f"![{title}]({file})"]
    lines += [
        "",
        "## How to read this",
        "",
        "- The protocol is that of Hendrycks & Dietterich 2019 (arXiv:1903.12261); noise, blur, contrast, "
        "brightness and JPEG have the levels of Tiny-ImageNet-C, lengths relative to the side.",
        "- Every model meets the same faces: they are made at the data's own size, from the seed "
        f"({report['seed']}) and the image's place in the split. Crops that reach beyond an image mirror it "
        "at its edge.",
        f"- Intervals: percentile bootstrap over {report['resamples']:,} resamples, drawing "
        f"{report['unit']}, the same in every condition.",
        f"- Data: {report['data']['name']}, content hash `{report['data_hash']}`.",
        "- `robustness.csv` has every accuracy, `robustness.json` everything.",
    ]
    return "\n".join([*lines, ""])
