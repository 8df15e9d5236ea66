"""Writes the report on a split: metrics as JSON, a page, predictions, and figures."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import tables
from fer_jax.evaluation import leakage, leakage_policy, plots, predictions_file
from fer_jax.evaluation.metrics import annotators, bootstrap, calibration, classification
from fer_jax.evaluation.report import error_analysis
from fer_jax.io_utils import write_atomically, write_json
from fer_jax.pretrained.registry import network_name

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
PAIRS = 10  # most frequently confused pairs of classes


def write_report(
    out_dir: os.PathLike | str,
    probs: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    *,
    metadata: dict[str, Any],
    images: Any = None,
    groups: np.ndarray | None = None,
    copies: np.ndarray | None = None,
) -> dict[str, Any]:
    """Writes predictions.csv, figures, report.md, and, last, report.json.

    Args:
      out_dir: output folder, created if it does not exist; an older report in it is replaced.
      probs: float [N, K], rows that sum to 1.
      labels: int [N], indices into metadata['emotions'].
      ids: N unique and stable image IDs.
      metadata: metadata of the checkpoint (see `weights_file.load_weights`) with 'split', 'tta', and
        'checkpoint' (the path of the weights). 'data' and 'data_hash' describe the evaluated dataset;
        'trained_data' and 'trained_data_hash' the training dataset, if it differs; 'annotators' is the
        result of `annotators.compare`, if there are votes.
      images: uint8 [N, H, W, C], an array or an object indexed by integer arrays, for the sheets of faces;
        None omits them.
      groups: int [N], equal for identical images (see `splits.duplicate_groups`), which are resampled
        together; None resamples single images.
      copies: int8 [N], see `leakage.find_duplicates`, against the splits that influenced the weights;
        None if unknown.

    Returns:
      The content of report.json.

    Raises:
      ValueError: as `classification.check`.
      OSError: `out_dir` cannot be written.
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    classification.check(probs, labels)
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    metadata = _complete(metadata)
    names = metadata["emotions"]
    report = metadata | figures(probs, labels, groups, names) | leakage_policy.assess(metadata, copies)
    report["leak_free"] = None if copies is None else leak_free(probs, labels, groups, copies)
    report["calibrated"] = calibrated(probs, labels, groups, metadata)
    mistakes = error_analysis.confident_mistakes(probs, labels)
    report["most_confident_mistakes"] = [str(ids[i]) for i in mistakes]
    # Removed first and written last, so that an existing report is complete.
    for name in ("report.json", "report.md"):
        (out_dir / name).unlink(missing_ok=True)
    table = predictions_file.Predictions(list(ids), probs, labels, names, groups, copies)
    predictions_file.write(out_dir / "predictions.csv", table)
    report["suspects"] = report["twins"] = None
    for name in ("suspects.csv", "suspects.png"):
        (out_dir / name).unlink(missing_ok=True)
    if report["trained_on_this_split"] is False:
        report["suspects"] = error_analysis.write_suspects(out_dir, probs, labels, ids, names, images)
    if images is not None:
        report["twins"] = error_analysis.write_twins(out_dir, probs, labels, ids, names, images)
        error_analysis.draw(out_dir, probs, labels, names, images)
    draw_figures(out_dir, report)
    page = tables.render(
        __package__,
        "report.md.j2",
        report=report,
        model=network_name(report["checkpoint"], report["model"]),
        there={path.name for path in out_dir.iterdir()},
        sheets=error_analysis,
        band_title=annotators.title,
        bins=calibration.BINS,
    )
    write_atomically(out_dir / "report.md", page.encode())
    write_json(out_dir / "report.json", report)
    return report


def _complete(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the metadata, with None for unknown fields."""
    known = ("selection", "config", "model", "parameters", "data", "data_hash", "calibration", "annotators")
    metadata = dict.fromkeys(known) | {"annotations": [], "labels": "given"} | metadata
    metadata.setdefault("trained_data_hash", metadata["data_hash"])
    metadata.setdefault("trained_data", metadata["data"])
    return metadata


def figures(
    probs: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, names: Sequence[str]
) -> dict[str, Any]:
    """Returns all metrics of a split; arguments as in `write_report`."""
    matrix = classification.confusion_matrix(probs, labels)
    of_class = classification.per_class(matrix)
    drawn = bootstrap.resample(probs, labels, groups)
    curve = calibration.risk_coverage(probs, labels)
    return headline_figures(probs, labels, drawn) | {
        "mean_confidence": float(probs.max(axis=1).mean()),
        "bootstrap": {
            "resamples": bootstrap.RESAMPLES,
            "unit": "images" if groups is None else "groups of identical images",
        },
        "emotions": list(names),
        "per_class": {
            name: {key: values[i].item() for key, values in of_class.items()}
            | {"interval_95": {key: _class_interval(drawn[key][:, i]) for key in bootstrap.PER_CLASS}}
            for i, name in enumerate(names)
        },
        "confusion_matrix": matrix.tolist(),
        "confused_pairs": confused_pairs(matrix, names),
        "reliability": _lists(calibration.reliability(probs, labels)),
        "reliability_adaptive": _lists(calibration.reliability(probs, labels, adaptive=True)),
        "aurc": calibration.aurc(curve),
        "selective": [calibration.answering(curve, coverage) for coverage in COVERAGES],
        "risk_coverage": _thinned(curve),
    }


def _lists(arrays: dict[str, np.ndarray]) -> dict[str, list[float]]:
    return {key: values.tolist() for key, values in arrays.items()}


def headline_figures(probs: np.ndarray, labels: np.ndarray, drawn: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the scalar metrics of a split with their 95 % intervals, by draws of `bootstrap.resample`."""
    scores = classification.scores(classification.confusion_matrix(probs, labels))
    values = {key: float(value) for key, value in scores.items()} | {
        "loss": float(classification.nll(probs, labels).mean()),
        "brier": float(classification.brier(probs, labels).mean()),
        "ece": calibration.ece(probs, labels),
        "adaptive_ece": calibration.ece(probs, labels, adaptive=True),
    }
    intervals = bootstrap.intervals(drawn, values)
    return {"num_examples": len(labels)} | values | {"interval_95": intervals}


def _class_interval(values: np.ndarray) -> list[float]:
    """Returns the interval of a class metric; [0, 0] for a class without images."""
    return [0.0, 0.0] if np.isnan(values).all() else bootstrap.interval(values).tolist()


def leak_free(
    probs: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, copies: np.ndarray
) -> dict[str, Any]:
    """Returns the metrics without images that have identical, or identical and near, duplicates.

    Returns:
      For 'without_identical' and 'without_near' the `headline_figures` and 'removed', the number of excluded
      images; None if no image remains.
    """
    parts: dict[str, Any] = {}
    for name, kept in leakage.leak_free(copies).items():
        parts[name] = None
        if kept.any():
            drawn = bootstrap.resample(probs[kept], labels[kept], None if groups is None else groups[kept])
            found = headline_figures(probs[kept], labels[kept], drawn)
            parts[name] = found | {"removed": int((~kept).sum())}
    return parts


def calibrated(
    probs: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, metadata: dict[str, Any]
) -> dict[str, Any] | None:
    """Returns calibration metrics with the checkpoint's temperature, None if it has none.

    If the temperature was, or may have been, fitted on these images, each half is rescaled with the
    temperature of the other half instead ('cross_fitted').
    """
    fitted = metadata["calibration"]
    if not fitted:
        return None
    split_hash = leakage_policy.split_hash(metadata["data"], metadata["split"])
    fitted_here = fitted.get("split_hash") in (None, split_hash)
    if fitted_here:
        each = np.arange(len(labels)) if groups is None else groups
        scaled = calibration.cross_rescale(probs, labels, each)
    else:
        scaled = calibration.rescale(probs, fitted["temperature"])
    drawn = bootstrap.resample(scaled, labels, groups)
    return select(headline_figures(scaled, labels, drawn), ("loss", "brier", "ece", "adaptive_ece")) | {
        "temperature": fitted["temperature"],
        "cross_fitted": fitted_here,
        "reliability": _lists(calibration.reliability(scaled, labels)),
    }


def select(found: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Selects metrics of `headline_figures`, with their intervals."""
    return {key: found[key] for key in keys} | {
        "interval_95": {key: found["interval_95"][key] for key in keys}
    }


def confused_pairs(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the most frequently confused pairs of classes in a confusion matrix int [K, K]."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    found = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        {
            "label": names[row],
            "prediction": names[column],
            "count": int(wrong[row, column]),
            "share_of_label": float(wrong[row, column] / matrix[row].sum()),
        }
        for row, column in found
        if wrong[row, column]
    ]


def _thinned(curve: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Returns at most 200 points of a curve, including the last."""
    places = np.unique(np.linspace(0, len(curve["risk"]) - 1, 200).round().astype(int))
    return {key: values[places].tolist() for key, values in curve.items()}


def draw_figures(out_dir: pathlib.Path, report: dict[str, Any]) -> None:
    """Plots the figures that need only the metrics of a report."""
    matrix, names = np.array(report["confusion_matrix"]), report["emotions"]
    plots.plot_confusion(matrix, names, out_dir / "confusion_matrix.png")
    plots.plot_per_class(report["per_class"], report["macro_f1"], out_dir / "per_class.png")
    plots.plot_reliability(report, out_dir / "reliability.png")
    plots.plot_risk_coverage(report, out_dir / "risk_coverage.png")
