"""report.md: the page of a report, written from what report.json holds."""

import json
import pathlib
from typing import Any

from fer_jax.evaluation.metrics import annotators, calibration
from fer_jax.evaluation.report import error_analysis
from fer_jax.pretrained.registry import network_name
from fer_jax.tables import table

_VIEWS = {
    "none": "one view of each (no test-time augmentation)",
    "flip": "two views of each averaged (the face and its mirror image)",
    "tencrop": "ten views of each averaged (five crops and their mirror images)",
}
# File, title, what it shows; in the order of the page.
_PICTURES = (
    (
        "per_class.png",
        "Scores by class",
        "Precision, recall and F1 of the table above, with their intervals.",
    ),
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
        "risk_coverage.png",
        "Abstaining",
        "If only the surest predictions are answered: how many of them are right (upwards) against how many "
        "are answered (to the right). The thresholds are in the table of abstaining.",
    ),
    (
        "mistakes.png",
        "The most confident mistakes",
        f"The wrong predictions of the highest probability, {error_analysis.MISTAKES} at most: the label, "
        "what the face was taken for, and with what probability. Their ids are in `report.json`, under "
        "`most_confident_mistakes`.",
    ),
    (
        "hardest.png",
        "Each class's hardest faces",
        f"Of each class the {error_analysis.PER_CLASS} images whose label got the lowest probability. Many "
        "are mistakes of the labels.",
    ),
    (
        "suspects.png",
        "Doubtful labels",
        f"The {error_analysis.SUSPECTS} most doubtful labels at most: the label with its probability, and "
        "what the model would rather say. `suspects.csv` has all of them.",
    ),
    (
        "twins.png",
        "Twins that disagree",
        "Pairs of nearly the same face, one beside the other, whose predictions differ. "
        "`twins.csv` has all of them, and the pairs whose labels differ.",
    ),
)
# Figure, name, what it is.
_ROWS = (
    ("accuracy", "accuracy", "share of right predictions"),
    ("balanced_accuracy", "balanced accuracy", "mean recall of the classes"),
    ("macro_f1", "macro F1", "mean F1 of the classes"),
    ("weighted_f1", "weighted F1", "mean F1 of the classes, weighted by their images"),
    ("loss", "loss", "mean negative log-likelihood of the label in nats; lower is better"),
    (
        "brier",
        "Brier score",
        "mean squared distance of the probabilities from the label, 0 to 2; lower is better",
    ),
    (
        "ece",
        "expected calibration error",
        f"mean gap between confidence and accuracy over {calibration.BINS} bins of confidence of equal "
        "width; lower is better",
    ),
    ("adaptive_ece", "adaptive calibration error", "the same over bins of equally many images"),
)


def report_page(report: dict[str, Any], out_dir: pathlib.Path) -> str:
    """The page of a report, with those of the pictures that lie in `out_dir`."""
    model = network_name(report["checkpoint"], report["model"])
    judged = "" if report["labels"] == "given" else f" by `{report['labels']}`"
    lines = [
        f"# {model} on `{report['split']}`{judged}: {100 * report['accuracy']:.2f} % accuracy",
        "",
        *_verdict(report),
        "",
        f"{_images(report)} of `{report['split']}` with labels `{report['labels']}`, "
        f"{_VIEWS[report['tta']]}. "
        f"The weights are `{report['checkpoint']}`; selected by: {_selected_by(report)}.",
        "",
        *table(("figure", "value", "95 % interval", "what it is"), _figure_rows(report)),
        *_leak_free(report),
        *_classes(report),
        *_calibrated(report),
        *_abstaining(report),
        *_annotators(report),
        *_suspects(report),
        *_cost(report),
    ]
    if (out_dir / "subgroups.md").is_file():
        lines += ["", "## Subgroups", "", "The figures by group are in [subgroups.md](subgroups.md)."]
    for file, title, text in _PICTURES:
        if (out_dir / file).is_file():
            lines += ["", f"## {title}", "", text, "", f"![{title}]({file})"]
    return "\n".join([*lines, "", "## Origin", "", *_origin(report), "", *_notes(report), ""])


def _verdict(report: dict[str, Any]) -> list[str]:
    lines = [f"**{report['note']}**"]
    if report["headline"]:
        part = report["leak_free"][report["headline"]] if report["headline"] != "accuracy" else report
        low, high = part["interval_95"]["accuracy"]
        lines = [
            f"**Headline: {100 * part['accuracy']:.2f} % accuracy (95 % {100 * low:.2f} - {100 * high:.2f}) "
            f"on {part['num_examples']:,} images. {report['note']}**"
        ]
    if report["labels"] != "given":
        lines += [
            "",
            f"**Extra annotations: it is judged by FER+'s labels, `{report['labels']}`.** Not to be compared "
            "with figures on FER2013's own labels.",
        ]
    if report["annotations"]:
        lines += ["", f"**Extra annotations: {', '.join(report['annotations'])}.** Not to be compared with "
                  "figures of models that learnt from FER2013's labels alone."]  # fmt: skip
    if number := report.get("test_evaluations"):
        lines += ["", f"Evaluation number {number} of `test` by these weights' run: the best of several "
                  "would be optimistic."]  # fmt: skip
    return lines


def _images(report: dict[str, Any]) -> str:
    count, size = report["num_examples"], report.get("split_size")
    if size in (None, count):
        return f"{count:,} images"
    return f"{count:,} of the {size:,} images (the others have no label by this rule that the classes know)"


def _figure_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [
        (name, f"{report[key]:.4f}", _interval(report["interval_95"][key]), text) for key, name, text in _ROWS
    ]
    text = "mean of the highest probabilities; the accuracy if well calibrated"
    return [*rows, ("mean confidence", f"{report['mean_confidence']:.4f}", "", text)]


def _interval(pair: list[float], digits: int = 4) -> str:
    return f"{pair[0]:.{digits}f} - {pair[1]:.{digits}f}"


def _leak_free(report: dict[str, Any]) -> list[str]:
    lines = ["", "## Without copies", ""]
    if report["leak_free"] is None:
        return [*lines, "Whether the images have copies among those of the training is not known."]
    names = {
        "without_identical": "without identical copies",
        "without_near": "without near and identical copies",
    }
    rows = [("the whole split", "0", *_row(report))]
    for key, name in names.items():
        part = report["leak_free"][key]
        found = (f"{part['removed']:,}", *_row(part)) if part else ("all", "0", "", "", "")
        rows.append((name, *found))
    return [
        *lines,
        "Images that have a copy in a split which the weights were trained or selected on are left out: "
        "pixel for pixel the same, or a correlation of their pixels of 0.9 at least.",
        "",
        *table(("part", "left out", "images", "accuracy", "macro F1", "ECE"), rows),
    ]


def _row(part: dict[str, Any]) -> tuple[str, ...]:
    cells = (
        f"{part[key]:.4f} ({_interval(part['interval_95'][key])})" for key in ("accuracy", "macro_f1", "ece")
    )
    return f"{part['num_examples']:,}", *cells


def _classes(report: dict[str, Any]) -> list[str]:
    rows = [
        (
            name,
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f} ({_interval(row['interval_95']['recall'], 3)})",
            f"{row['f1']:.3f}",
            f"{row['support']:,}",
            f"{row['predicted']:,}",
        )
        for name, row in report["per_class"].items()
    ]
    pairs = [
        (pair["label"], pair["prediction"], f"{pair['count']:,}", f"{100 * pair['share_of_label']:.1f} %")
        for pair in report["confused_pairs"]
    ]
    lines = [
        "",
        "## Classes",
        "",
        "Precision: how many of those predicted to be of the class are. Recall: how many of the class are "
        "found. F1: the harmonic mean of both. Images: how many have the label. Predicted: how many were "
        "taken for it.",
        "",
        *table(("emotion", "precision", "recall", "F1", "images", "predicted"), rows),
    ]
    if pairs:
        head = ("label", "taken for", "images", "share of the label")
        lines += ["", "The most frequent mistakes:", "", *table(head, pairs)]
    return lines


def _calibrated(report: dict[str, Any]) -> list[str]:
    found = report["calibrated"]
    if not found:
        return []
    names = {key: name for key, name, _ in _ROWS}
    rows = [
        (
            names[key],
            f"{report[key]:.4f}",
            f"{found[key]:.4f}",
            _interval(found["interval_95"][key]),
        )
        for key in ("loss", "brier", "ece", "adaptive_ece")
    ]
    how = (
        "It was fitted on this split: each half of the images is rescaled by the temperature of the other."
        if found["cross_fitted"]
        else f"It was fitted on `{report['calibration']['split']}`."
    )
    return [
        "",
        "## Calibrated",
        "",
        f"The checkpoint's temperature is {found['temperature']:.3f}: logarithms of the probabilities "
        "are divided by it (Guo et al. 2017), which changes no prediction. It was chosen for the least loss "
        f"on single views; the calibration errors need not fall with it. {how}",
        "",
        *table(("figure", "as predicted", "calibrated", "95 % interval"), rows),
    ]


def _abstaining(report: dict[str, Any]) -> list[str]:
    rows = [
        (f"{row['threshold']:.4f}", f"{100 * row['coverage']:.1f} %", f"{100 * row['accuracy']:.2f} %")
        for row in report["selective"]
    ]
    return [
        "",
        "## Abstaining",
        "",
        "Answering only where the confidence is the threshold at least (before any temperature). The mean "
        f"error over all coverages (AURC) is {report['aurc']:.4f}.",
        "",
        *table(("threshold", "answered", "accuracy of the answers"), rows),
    ]


def _annotators(report: dict[str, Any]) -> list[str]:
    found = report["annotators"]
    if not found:
        return []
    names = {"given": "the given labels", found["rule"]: f"FER+, `{found['rule']}`"}
    rows = []
    for band in [{"label": "all"} | found, *found["bands"]]:
        label = band.get("label") or annotators.title(band)
        if not band["num_examples"]:
            rows.append((label, "0", *[""] * (len(names) + 1)))
            continue
        rows.append(
            (
                label,
                f"{band['num_examples']:,}",
                *(_against(band["against"][name]) for name in names),
                f"{band['one_annotator']:.4f}",
            )
        )
    head = ("agreement", "images", *(f"accuracy, {name}" for name in names.values()), "one annotator")
    lines = [
        "",
        "## Annotators",
        "",
        "FER+ asked ten people about each image. Agreement is the share of them who gave the most frequent "
        "answer; one annotator, how often one of them said what most of the others did. Where people "
        "disagree a model's mistake may be no mistake. All images of the split with votes are here, whatever "
        "labels the figures above are by.",
        "",
        *table(head, rows),
        "",
    ]
    if found["labels_agree"] is not None:
        lines.append(f"The two labels are the same for {found['labels_agree']:.1%} of the images with both.")
    if soft := found["soft"]:
        lines.append(
            f"Against the annotators' distribution the cross entropy is {soft['cross_entropy']:.4f} nats; "
            f"that distribution's own entropy, the least there can be, is {soft['floor']:.4f} (votes for the "
            f"classes, single ones dropped; {soft['num_examples']:,} images)."
        )
    return lines


def _suspects(report: dict[str, Any]) -> list[str]:
    found = report["suspects"]
    if not found:
        return []
    rows = []
    for name, count in found.items():
        of = report["per_class"][name]["support"]
        rows.append((name, f"{count:,}", f"{of:,}", f"{100 * count / of:.1f} %" if of else ""))
    total, images = sum(found.values()), report["num_examples"]
    rows.append(("all", f"{total:,}", f"{images:,}", f"{100 * total / images:.1f} %"))
    return [
        "",
        "## Suspected label errors",
        "",
        "Labels that confident learning (Northcutt et al. 2021) takes for wrong, by what the model says of "
        "the images. `suspects.csv` has them, the most doubtful first: a list to look through, and by no "
        "means errors all of them.",
        "",
        *table(("label", "suspects", "images", "share"), rows),
    ]


def _cost(report: dict[str, Any]) -> list[str]:
    cost = report.get("cost") or {}
    if not cost.get("flops"):
        return []
    operations = f"{cost['flops'] / 1e6:,.1f} million floating-point operations"
    lines = ["", "## Cost", "", f"A face takes {operations}, two for each multiply-add."]
    if latency := cost.get("latency"):
        low, high = latency["quartiles_milliseconds"]
        lines.append(
            f"By itself it takes {latency['milliseconds']:.2f} ms on {latency['hardware']} (median; "
            f"quartiles {low:.2f} - {high:.2f}): the wider apart, the more else the machine was doing."
        )
    return lines


def _against(row: dict[str, Any]) -> str:
    if not row["num_examples"]:
        return ""
    return f"{row['accuracy']:.4f} ({_interval(row['interval_95'])}), {row['num_examples']:,} images"


def _selected_by(report: dict[str, Any]) -> str:
    selection = report["selection"]
    if not selection:
        return "no score"
    metric, value = selection["metric"], selection["value"]
    step = f" at step {selection['step']:,}" if "step" in selection else ""
    return f"{metric} {value:.4f} on `{selection['split']}`{step}"


def _taught_by(report: dict[str, Any]) -> str:
    if not report.get("config"):
        return "not recorded"
    distill = report["config"].get("distill") or {}
    if not distill.get("teachers"):
        return "labels alone"
    teachers = ", ".join(map(str, distill["teachers"]))
    labels = ", and labels" if distill["weight"] < 1 else ""
    how = "asked once" if distill.get("views") == "plain" else f"temperature {distill['temperature']:g}"
    return f"{teachers} (weight {distill['weight']:g}, {how}){labels}"


def _origin(report: dict[str, Any]) -> list[str]:
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
        "taught by": _taught_by(report),
        "extra annotations in the training": ", ".join(report["annotations"]) or "none",
        "labels it is judged by": f"`{report['labels']}`",
        "weights": "averaged over the training (EMA)" if report.get("ema") else "as trained",
        "seed": str(report.get("seed", "not recorded")),
        "fer_jax": report.get("version", "not recorded"),
    }
    return table(("", ""), list(rows.items()))


def _notes(report: dict[str, Any]) -> list[str]:
    drawn = report["bootstrap"]
    return [
        "## How to read this",
        "",
        "- Each image counts once. `predictions.csv` has a row for each: its id, label and "
        f"prediction (0 to {len(report['emotions']) - 1}: {', '.join(report['emotions'])}) and its "
        "probabilities in that order; scikit-learn gives the same figures on it.",
        f"- Intervals: percentile bootstrap over {drawn['resamples']:,} resamples, drawing "
        f"{drawn['unit']}. They tell how much another draw of test faces would move the figure, "
        "not how much another training would. Those of the calibration errors are the basic bootstrap's: a "
        "split's error lies above the truth on average, as a resample's above its split's.",
        "- A precision, recall or F1 without a denominator counts as 0. Balanced accuracy averages "
        "over the classes that have images, macro F1 over those that have images or predictions.",
        *(["- The whole configuration of the training is in `report.json`."] if report.get("config") else []),
    ]
