"""Measures how much accuracy a network retains on corrupted faces.

    fer-jax robustness --workdir runs/cnn --data data/fer2013 --out robustness
    fer-jax robustness --checkpoint my.safetensors --data data/mine --out out --limit 500

Evaluates the split as it is and under sixteen corruptions (noise, blur, contrast, brightness, JPEG, low
resolution, rotation, covered eyes or mouth, crops that are too tight, too wide, or shifted), each at five
severities. Writes to OUT robustness.md (start there), robustness.json (all metrics), robustness.csv (one row
per severity), and figures. --limit N uses a stratified sample of about N faces; with 500, intervals are about
4 points to either side. Run the same command to resume.
"""

import argparse
import hashlib
import shutil

from fer_jax import tables
from fer_jax.commands import common
from fer_jax.evaluation import leakage_policy
from fer_jax.pretrained.registry import network_name

SEED = 0


def main(argv: list[str] | None = None) -> int:
    parser = common.make_evaluation_parser(__doc__, "folder for the report")
    common.add_training_data(parser)
    text = "use a stratified sample of about N faces"
    parser.add_argument("--limit", type=common.at_least_one, metavar="N", help=text)
    return common.run(measure, parser.parse_args(argv))


def measure(args: argparse.Namespace) -> int:
    """Predicts all conditions and writes the report; returns the exit code."""
    import jax

    from fer_jax.data import splits
    from fer_jax.evaluation import labelled_split
    from fer_jax.evaluation.metrics import classification
    from fer_jax.evaluation.robustness import degradation, robustness_report

    trained, labelled, metadata, out = common.open_evaluation(args)
    faces, numbers, size = labelled.faces, labelled.kept, len(labelled.faces)
    groups = splits.duplicate_groups(faces.images)
    if args.limit and args.limit < size:
        shares = {"kept": args.limit / size, "rest": 1 - args.limit / size}
        part = splits.stratified_group_split(faces.labels, groups, shares, SEED)["kept"]
        faces, groups, numbers = faces.take(part), groups[part], numbers[part]
    copies = labelled_split.find_duplicates(trained, faces.images, metadata, [args.data, *args.training_data])

    def predict(images):
        return trained.predict(
            images, num_classes=len(labelled.names), batch_size=args.batch_size, progress=False
        )

    weights = [hashlib.sha256(leaf.tobytes()).hexdigest() for leaf in jax.tree.leaves(trained.variables)]
    images = [metadata["data_hash"], metadata["split"], numbers.tolist()]
    keep = degradation.keep_for(
        out / "unfinished", [weights, trained.normalization, labelled.names, images, SEED]
    )
    predictions = degradation.predict_all(predict, faces.images, numbers=numbers, seed=SEED, keep=keep)
    accuracy = classification.accuracy(predictions[degradation.CLEAN], faces.labels)
    number = leakage_policy.record_test(metadata, accuracy, f"robustness, {len(faces)} faces")
    metadata |= {"split_size": size, "test_evaluations": number}
    report = robustness_report.write_report(
        out, predictions, faces, groups, numbers=numbers, seed=SEED, metadata=metadata, copies=copies
    )
    shutil.rmtree(keep)
    network = network_name(trained.source, report["model"])
    print(f"{network} on {len(faces):,} of {size:,} faces of {args.split}\n")
    for name, key, value in (
        ("clean accuracy", "clean", "accuracy"),
        ("mean corruption accuracy", "mean_corruption_accuracy", "value"),
        ("share of clean accuracy", "kept", "value"),
    ):
        print(f"  {name:28} {report[key][value]:.4f}   95 % {tables.interval(report[key]['interval_95'])}")
    print(f"\nreport: {out / 'robustness.md'}")
    return 0
