"""The report on one split: figures as JSON, a page to read, a row for every image, pictures."""

import csv
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import plots, statistics
from fer_jax.files import write_atomically

RESAMPLES = 2000
BINS = 15
MISTAKES = 32  # faces on the sheet of mistakes

_VIEWS = {
    "none": "one view of each (no test-time augmentation)",
    "flip": "two views of each averaged (the face and its mirror image)",
    "tencrop": "ten views of each averaged (five crops and their mirror images)",
}
# File, title, what it shows; in the order of the page.
_PICTURES = (
    ("per_class.png", "Scores by class", "Precision, recall and F1 of the table above."),
    (
        "confusion_matrix.png",
        "Confusion matrix",
        "Rows are labels, columns predictions: images on the left, percent of the label's images on the "
        "right. That share is the shade of both.",
    ),
    (
        "reliability.png",
        "Confidence and accuracy",
        "An image's confidence is its highest probability. A bar is the accuracy of the images with that "
        "confidence: above its red mark the model is right more often than it says, below it less often. "
        "The lower picture counts the images.",
    ),
    (
        "mistakes.png",
        "The most confident mistakes",
        f"The wrong predictions of the highest probability, {MISTAKES} at most: the label, what the face was "
        "taken for, and with what probability. Their ids are in `report.json`, under "
        "`most_confident_mistakes`.",
    ),
)


def write_report(
    out_dir: os.PathLike | str,
    probs: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    *,
    facts: dict[str, Any],
    images: Any = None,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Writes predictions.csv, the pictures, report.md and, last, report.json.

    Args:
      out_dir: made here if need be; an older report in it is replaced.
      probs: float [N, K], rows that sum to 1.
      labels: int [N], the classes' places in probs.
      ids: N names, unique and stable.
      facts: those of the checkpoint (see `checkpoints.load_weights`; 'emotions', the names of the K classes,
        are `EMOTIONS` where they do not tell), together with 'split', 'tta'
        and 'checkpoint' (where the weights lie); 'data' and 'data_hash' are of the evaluated data,
        'trained_data' and 'trained_data_hash', where they differ, of the data of the training.
      images: uint8 [N, H, W, C], an array or an object indexed by integer arrays, for the sheet of
        mistakes; None leaves it out.
      groups: int [N], equal for identical images (see `splits.duplicate_groups`), which the
        intervals resample together; None resamples images one by one.

    Returns:
      What report.json holds.

    Raises:
      ValueError: nothing to evaluate or no distributions, see `statistics.check`.
      OSError: `out_dir` cannot be written.
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    statistics.check(probs, labels)
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    names = list(facts.get("emotions", EMOTIONS))
    report = _figures(probs, labels, groups, names) | _origin(facts)
    report["most_confident_mistakes"] = [str(ids[i]) for i in _worst(probs, labels)]
    # Gone first and written last: a report always has the rest of what belongs to it beside it.
    for name in ("report.json", "report.md"):
        (out_dir / name).unlink(missing_ok=True)
    write_atomically(out_dir / "predictions.csv", _predictions(probs, labels, ids, names).encode())
    _draw_pictures(out_dir, probs, labels, images, report)
    pictures = [picture for picture in _PICTURES if (out_dir / picture[0]).is_file()]
    write_atomically(out_dir / "report.md", _page(report, pictures).encode())
    text = json.dumps(report, indent=2, sort_keys=True) + "\n"
    write_atomically(out_dir / "report.json", text.encode())
    return report


def _figures(probs, labels, groups, names) -> dict[str, Any]:
    """Everything that is computed from the predictions."""
    matrix = statistics.confusion_matrix(probs, labels)
    scores = statistics.per_class(matrix)
    interval = statistics.bootstrap_interval(probs, labels, groups, resamples=RESAMPLES)
    return {
        "num_examples": len(labels),
        "accuracy": statistics.accuracy(probs, labels),
        "balanced_accuracy": statistics.balanced_accuracy(probs, labels),
        "macro_f1": statistics.macro_f1(probs, labels),
        "weighted_f1": statistics.weighted_f1(probs, labels),
        "loss": statistics.nll(probs, labels),
        "brier": statistics.brier(probs, labels),
        "ece": statistics.ece(probs, labels, BINS),
        "mean_confidence": float(probs.max(axis=1).mean()),
        "interval_95": {name: list(pair) for name, pair in interval.items()}
        | {
            "resamples": RESAMPLES,
            "unit": "images" if groups is None else "groups of identical images",
        },
        "emotions": names,
        "per_class": {
            name: {key: values[i].item() for key, values in scores.items()} for i, name in enumerate(names)
        },
        "confusion_matrix": matrix.tolist(),
        "reliability": {
            key: values.tolist() for key, values in statistics.reliability(probs, labels, BINS).items()
        },
    }


def _origin(facts: dict[str, Any]) -> dict[str, Any]:
    """Where the predictions come from, and what that means for the figures."""
    known = {
        "selection": None,
        "config": None,
        "model": None,
        "parameters": None,
        "data": None,
        "data_hash": None,
    }
    facts = known | facts
    facts.setdefault("trained_data_hash", facts["data_hash"])
    facts.setdefault("trained_data", facts["data"])
    selection, split = facts["selection"], facts["split"]
    trained = {name: _split_hash(facts["trained_data"], name) for name in _used_splits(selection)}
    # A dataset may have got another split since; what the training used tells whether it is the same.
    same_data = facts["trained_data_hash"] == facts["data_hash"] or all(
        found is not None and found == _split_hash(facts["data"], name) for name, found in trained.items()
    )
    here = _split_hash(facts["data"], split)
    used_here = {name for name, found in trained.items() if found is not None and found == here}
    if same_data:
        used_here |= {split} & set(trained)
    selected_here = bool(selection) and selection["split"] in used_here
    if "train" in used_here:
        note = "The model was trained on this split: the figures say nothing about new faces."
    elif selected_here:
        note = (
            f"Selected on this split: of all evaluations of the run on `{split}` this checkpoint's "
            f"{selection['metric']} was the best, so the figure is optimistic."
        )
    elif not same_data:
        note = (
            "The data are not those of the training: whether they share images is not known, and "
            f"neither is whether the two mean the same by `{split}`."
        )
    elif selection:
        note = (
            f"The checkpoint was selected on `{selection['split']}`; no score on `{split}` had a part in "
            "that. Whether the splits share images is for scripts/audit_data.py to say."
        )
    else:
        note = "No score selected this checkpoint: it is not the best of its run, or its run keeps none."
    return facts | {"selected_on_this_split": selected_here, "note": note}


def _used_splits(selection: dict[str, Any] | None) -> list[str]:
    """The splits that had a part in the weights."""
    return ["train", selection["split"]] if selection else ["train"]


def _split_hash(data: dict[str, Any] | None, split: str) -> str | None:
    """The hash of a split's labels and pixels, where the data's facts tell it."""
    return (data or {}).get("splits", {}).get(split, {}).get("hash")


def _predictions(probs, labels, ids, names) -> str:
    """CSV, one row an image; probabilities in full, so that all figures follow from it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "label", "prediction", *names])
    for name, label, row in zip(ids, labels.tolist(), probs.tolist(), strict=True):
        writer.writerow([name, label, row.index(max(row)), *map(repr, row)])
    return text.getvalue()


def _draw_pictures(out_dir, probs, labels, images, report) -> None:
    """Draws the pictures; no sheet of mistakes where there is nothing to show."""
    names, matrix = report["emotions"], np.array(report["confusion_matrix"])
    plots.plot_confusion(matrix, names, out_dir / "confusion_matrix.png")
    scores = statistics.per_class(matrix)
    plots.plot_per_class(scores, names, report["macro_f1"], out_dir / "per_class.png")
    table = {key: np.array(values) for key, values in report["reliability"].items()}
    plots.plot_reliability(table, report["ece"], report["accuracy"], out_dir / "reliability.png")
    sheet = out_dir / "mistakes.png"
    wrong = _worst(probs, labels)
    if images is None or not len(wrong):
        sheet.unlink(missing_ok=True)  # of an older report
        return
    predicted = probs.argmax(axis=1)
    captions = [
        f"{names[labels[i]]} taken for\n{names[predicted[i]]} {100 * probs[i].max():.1f} %" for i in wrong
    ]
    title = "The most confident mistakes: the label, what it was taken for, how surely"
    plots.plot_faces(images[wrong], captions, title, sheet)


def _worst(probs, labels) -> np.ndarray:
    """Indices of the wrong predictions of the highest probability, highest first."""
    wrong = np.flatnonzero(probs.argmax(axis=1) != labels)
    return wrong[np.argsort(-probs[wrong].max(axis=1), kind="stable")][:MISTAKES]


def _page(report: dict[str, Any], pictures: Sequence[tuple[str, str, str]]) -> str:
    """report.md, with those of `_PICTURES` that were drawn."""
    low, high = report["interval_95"]["accuracy"]
    low_f1, high_f1 = report["interval_95"]["macro_f1"]
    model = (report["model"] or {}).get("name", "unknown model")
    lines = [
        f"# {model} on `{report['split']}`: {100 * report['accuracy']:.2f} % accuracy",
        "",
        f"{report['num_examples']:,} images of `{report['split']}`, {_VIEWS[report['tta']]}. "
        f"The weights are `{report['checkpoint']}`; selected by: {_selected_by(report)}.",
        "",
        f"**{report['note']}**",
        "",
        "| figure | value | 95 % interval | what it is |",
        "|---|---|---|---|",
        f"| accuracy | {report['accuracy']:.4f} | {low:.4f} - {high:.4f} | share of right predictions |",
        f"| balanced accuracy | {report['balanced_accuracy']:.4f} | | mean recall of the classes |",
        f"| macro F1 | {report['macro_f1']:.4f} | {low_f1:.4f} - {high_f1:.4f} | mean F1 of the classes |",
        f"| weighted F1 | {report['weighted_f1']:.4f} | | mean F1 of the classes, weighted by their images |",
        f"| loss | {report['loss']:.4f} | | mean negative log-likelihood of the label in nats; "
        "lower is better |",
        f"| Brier score | {report['brier']:.4f} | | mean squared distance of the probabilities from the "
        "label, 0 to 2; lower is better |",
        f"| expected calibration error | {report['ece']:.4f} | | mean gap between confidence and accuracy "
        f"over {BINS} bins of confidence; lower is better |",
        f"| mean confidence | {report['mean_confidence']:.4f} | | mean of the highest probabilities; "
        "the accuracy if well calibrated |",
        "",
        "## Classes",
        "",
        "Precision: how many of those predicted to be of the class are. Recall: how many of the class are "
        "found. F1: the harmonic mean of both. Images: how many have the label. Predicted: how many were "
        "taken for it.",
        "",
        "| emotion | precision | recall | F1 | images | predicted |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["per_class"].items():
        lines.append(
            f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | "
            f"{row['support']:,} | {row['predicted']:,} |"
        )
    for file, title, text in pictures:
        lines += ["", f"## {title}", "", text, "", f"![{title}]({file})"]
    return "\n".join([*lines, "", "## Origin", "", *_origin_table(report), "", *_notes(report), ""])


def _selected_by(report: dict[str, Any]) -> str:
    selection = report["selection"]
    if not selection:
        return "no score"
    metric, value = selection["metric"], selection["value"]
    return f"{metric} {value:.4f} on `{selection['split']}` at step {selection['step']:,}"


def _origin_table(report: dict[str, Any]) -> list[str]:
    parameters = report["parameters"]
    rows = {
        "checkpoint": f"`{report['checkpoint']}`",
        "selected by": _selected_by(report),
        "model": f"`{json.dumps(report['model'], sort_keys=True)}`",
        "parameters": "not recorded" if parameters is None else f"{parameters:,}",
        "test-time augmentation": report["tta"],
        "data": report["data"]["name"] if report["data"] else "not recorded",
        "data (content hash)": f"`{report['data_hash']}`",
        "trained on (content hash)": f"`{report['trained_data_hash']}`",
        "weights": "averaged over the training (EMA)" if report.get("ema") else "as trained",
        "seed": report.get("seed", "not recorded"),
        "fer_jax": report.get("version", "not recorded"),
    }
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]


def _notes(report: dict[str, Any]) -> list[str]:
    interval, names = report["interval_95"], report["emotions"]
    return [
        "## How to read this",
        "",
        "- Each image counts once. `predictions.csv` has a row for each: its id, label and "
        f"prediction (0 to {len(names) - 1}: {', '.join(names)}) and its probabilities "
        "in that order; scikit-learn gives the same figures on it.",
        f"- Intervals: percentile bootstrap over {interval['resamples']:,} resamples, drawing "
        f"{interval['unit']}. They tell how much another draw of test faces would move the figure, "
        "not how much another training would.",
        "- A precision, recall or F1 without a denominator counts as 0. Balanced accuracy averages "
        "over the classes that have images, macro F1 over those that have images or predictions.",
        "- The whole configuration of the training is in `report.json`.",
    ]
