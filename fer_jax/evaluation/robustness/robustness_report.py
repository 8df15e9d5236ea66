"""Writes the robustness report: metrics as JSON and CSV, a page, and figures."""

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import plotting, tables
from fer_jax.data.faces import Faces
from fer_jax.evaluation import leakage, leakage_policy
from fer_jax.evaluation.robustness import degradation, robustness_plots
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fer_jax.io_utils import write_atomically, write_json
from fer_jax.pretrained.registry import network_name


def write_report(
    out_dir: os.PathLike | str,
    predictions: degradation.Predictions,
    faces: Faces,
    groups: np.ndarray | None,
    *,
    numbers: np.ndarray,
    seed: int,
    metadata: dict[str, Any],
    copies: np.ndarray | None = None,
) -> dict[str, Any]:
    """Writes robustness.csv, figures, robustness.md, and, last, robustness.json.

    Args:
      out_dir: existing output folder; an older report in it is replaced.
      predictions: from `degradation.predict_all` with these `numbers` and this `seed`.
      faces: the predicted faces.
      groups: as in `degradation.figures`.
      numbers: int [N], number of each face, see `corruptions.corrupt`.
      seed: seed of the corruptions.
      metadata: JSON for the report: 'model', 'emotions' (the classes), 'labels', 'checkpoint', 'split',
        'split_size' (its number of faces), 'data', 'data_hash', and the fields for `leakage_policy.assess`.
      copies: int8 [N], see `leakage.find_duplicates`, against the splits that influenced the weights; None if
        unknown.

    Returns:
      The content of robustness.json: the metadata, `degradation.figures`, and 'leak_free', the summary
      without identical, and without identical and near, duplicates.

    Raises:
      ValueError: the predictions are not distributions.
      OSError: `out_dir` cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    figures = degradation.figures(predictions, faces.labels, groups)
    report: dict[str, Any] = metadata | figures | {"seed": seed}
    report["note"] = leakage_policy.assess(metadata, copies)["note"]
    report["leak_free"] = None if copies is None else _leak_free(predictions, faces.labels, groups, copies)
    report["unit"] = "images" if groups is None else "groups of identical images"
    for name in ("robustness.json", "robustness.md"):
        (out_dir / name).unlink(missing_ok=True)
    robustness_plots.plot_curves(report, out_dir / "robustness_curves.png")
    robustness_plots.plot_summary(report, out_dir / "robustness_summary.png")
    sheet = out_dir / "corruptions.png"
    report["example"] = _draw_example(sheet, predictions, faces, numbers, seed, metadata["emotions"])
    write_atomically(out_dir / "robustness.csv", _csv(report).encode())
    page = tables.render(
        __package__,
        "robustness.md.j2",
        report=report,
        model=network_name(report["checkpoint"], report["model"]),
        corruptions=CORRUPTIONS,
        severities=SEVERITIES,
    )
    write_atomically(out_dir / "robustness.md", page.encode())
    write_json(out_dir / "robustness.json", report)
    return report


def _leak_free(
    predictions: degradation.Predictions, labels: np.ndarray, groups: np.ndarray | None, copies: np.ndarray
) -> dict[str, Any]:
    """Returns the summaries 'without_identical' and 'without_near', None if no face remains."""
    parts: dict[str, Any] = {}
    for name, kept in leakage.leak_free(copies).items():
        parts[name] = None
        if kept.any():
            some = {key: probs[kept] for key, probs in predictions.items()}
            found = degradation.figures(some, labels[kept], None if groups is None else groups[kept])
            summary = ("num_examples", "clean", "mean_corruption_accuracy", "kept")
            parts[name] = {key: found[key] for key in summary}
    return parts


def _draw_example(
    path: pathlib.Path,
    predictions: degradation.Predictions,
    faces: Faces,
    numbers: np.ndarray,
    seed: int,
    names: Sequence[str],
) -> str:
    """Plots the most confident correctly classified face under all corruptions; returns its ID."""
    clean = predictions[degradation.CLEAN]
    own = np.where(clean.argmax(axis=1) == faces.labels, clean[np.arange(len(clean)), faces.labels], 0)
    chosen = int(own.argmax())
    image, number = faces.images[np.array([chosen])], [numbers[chosen]]
    images, captions, wrong = [image[0]], ["clean"], [False]
    for name, severity in itertools.product(CORRUPTIONS, SEVERITIES):
        images += list(corrupt(image, name, severity, seed=seed, numbers=number))
        probs = predictions[degradation.condition(name, severity)][chosen]
        level = f"{CORRUPTIONS[name].title} {CORRUPTIONS[name].levels[severity - 1]:.3g}"
        captions.append(f"{level}\n{names[probs.argmax()]} {100 * probs.max():.0f} %")
        wrong.append(bool(probs.argmax() != faces.labels[chosen]))
    captions[0] += f"\n{names[faces.labels[chosen]]} {100 * own[chosen]:.0f} %"
    columns = 2 * len(SEVERITIES)
    places = [0, *range(columns, columns + len(images) - 1)]  # the clean face has its own row
    title = "One face under all corruptions: level, prediction, and its probability (red: error)"
    plotting.plot_faces(images, captions, title, path, columns, places, wrong)
    return str(faces.ids[chosen])


def _csv(report: dict[str, Any]) -> str:
    rows: list[tuple] = [("corruption", "severity", "level", "images", "accuracy", "low", "high", "macro_f1")]
    figures = [(degradation.CLEAN, 0, "", report["clean"])]
    for name, found in report["corruptions"].items():
        for severity, figure in zip(SEVERITIES, found["severities"], strict=True):
            figures.append((name, severity, figure["level"], figure))
    for *key, figure in figures:
        numbers = (figure["accuracy"], *figure["interval_95"], figure["macro_f1"])
        rows.append((*key, report["num_examples"], *map(repr, numbers)))
    return tables.csv_text(rows)
