"""Evaluates a trained network on one split and writes a report with figures.

    fer-jax evaluate --workdir runs/cnn --data data/fer2013 --out evaluation
    fer-jax evaluate --checkpoint my.safetensors --data data/mine --split test --out out

On data with FER+ votes the report also compares the network with the annotators. --labels selects the
labels to score against.

Writes to OUT report.md (start there), report.json (all metrics, the config, the origin of weights and data),
predictions.csv (ID, label, prediction, and probabilities of each image, and whether it has a duplicate in the
training data), suspects.csv (likely wrong labels), twins.csv (duplicates whose predictions or labels differ),
and figures. Every image counts once, whatever the batch size and the number of devices.

Metrics are given for the entire split, and without images that have a duplicate in the splits that the
weights were trained or selected on. These splits are taken from DATA or, if the network was trained on other
data, from --training_data. An evaluation on `test` is recorded in test_evaluations.jsonl next to the weights,
or, for a bundled network, in ~/.local/state/fer_jax (or $FER_JAX_STATE).

--attributes takes a table of image attributes (a CSV file with a column id and categorical columns, such as
age or source) and writes the metrics of each subgroup, and the largest gaps between subgroups, to
subgroups.md, subgroups.json, and subgroups.png.

--tta averages several views of each face: "flip" averages the face and its mirror image (2 times the cost),
"tencrop" five crops and their mirror images (10 times).

--latency measures the time for a single face on this machine; run nothing else meanwhile.
"""

import argparse
from pathlib import Path

from fer_jax.commands import common
from fer_jax.evaluation import leakage_policy
from fer_jax.pretrained.registry import network_name


def main(argv: list[str] | None = None) -> int:
    parser = common.make_evaluation_parser(__doc__, "folder for the report")
    common.add_training_data(parser)
    text = "CSV file with an id column and categorical columns; also reports metrics per subgroup"
    parser.add_argument("--attributes", metavar="CSV", help=text)
    views = ("none", "flip", "tencrop")
    parser.add_argument("--tta", default="none", choices=views, help="test-time augmentation")
    parser.add_argument("--latency", action="store_true", help="also measure the time per face")
    return common.run(evaluate, parser.parse_args(argv))


def evaluate(args: argparse.Namespace) -> int:
    """Predicts the split, writes the report, and prints a summary; returns the exit code."""
    from fer_jax import batch_inference
    from fer_jax.data import splits
    from fer_jax.evaluation import cost, labelled_split
    from fer_jax.evaluation.metrics import annotators, classification, subgroups
    from fer_jax.evaluation.report import report, subgroups_report

    trained, labelled, metadata, out = common.open_evaluation(args)
    faces, whole = labelled.faces, labelled.whole
    groups_of_whole = splits.duplicate_groups(whole.images)
    groups = groups_of_whole[labelled.kept]
    attributes = subgroups.read_table(args.attributes) if args.attributes else None
    if attributes:
        subgroups.match(attributes, faces.ids)  # fails early
    # The comparison with the annotators covers the entire split, whatever --labels.
    all_probs = trained.predict(whole.images, batch_size=args.batch_size, tta=args.tta)
    probs = batch_inference.restrict(all_probs[labelled.kept], len(labelled.names))
    metadata |= {
        "split_size": len(whole),
        "tta": args.tta,
        "parameters": trained.parameters,
        "cost": cost.measure(trained, faces.image_shape if args.latency else None),
    }
    if whole.votes is not None:
        metadata["annotators"] = annotators.compare(all_probs, whole.labels, whole.votes, groups_of_whole)
    copies = labelled_split.find_duplicates(trained, faces.images, metadata, [args.data, *args.training_data])
    accuracy = classification.accuracy(probs, faces.labels)
    metadata["test_evaluations"] = leakage_policy.record_test(metadata, accuracy, f"tta {args.tta}")
    for name in ("subgroups.md", "subgroups.json", "subgroups.png"):
        (out / name).unlink(missing_ok=True)
    if attributes:
        found = subgroups.compare(probs, faces.labels, faces.ids, groups, attributes, copies)
        subgroups_report.write(out, found)
    of_images = {"images": faces.images, "groups": groups, "copies": copies}
    found = report.write_report(out, probs, faces.labels, faces.ids, metadata=metadata, **of_images)
    print(summary(found, args.out))
    return 0


def summary(report: dict, out: str) -> str:
    """Returns the main metrics and the path of the report."""
    interval = report["interval_95"]
    network = network_name(report["checkpoint"], report["model"])
    lines = [
        f"{network} on {report['split']}: {report['num_examples']:,} images, tta {report['tta']}",
        "",
    ]
    for key, label in (
        ("accuracy", "accuracy"),
        ("balanced_accuracy", "balanced accuracy"),
        ("macro_f1", "macro F1"),
        ("weighted_f1", "weighted F1"),
        ("loss", "loss"),
        ("ece", "calibration error"),
    ):
        lines.append("  {:18} {:.4f}   95 % {:.4f} - {:.4f}".format(label, report[key], *interval[key]))
    for key, part in (report["leak_free"] or {}).items():
        if part:
            words = "  {:18} {:.4f}   95 % {:.4f} - {:.4f}   {:,} images without {} duplicates"
            numbers = (part["accuracy"], *part["interval_95"]["accuracy"], part["num_examples"])
            lines.append(words.format("accuracy", *numbers, key.removeprefix("without_")))
    lines += ["", f"  {'emotion':10} precision  recall      F1  images"]
    for name, row in report["per_class"].items():
        lines.append(
            f"  {name:10} {row['precision']:9.3f} {row['recall']:7.3f} {row['f1']:7.3f} {row['support']:7,}"
        )
    return "\n".join([*lines, "", report["note"], f"report: {Path(out) / 'report.md'}"])
