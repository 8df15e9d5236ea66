"""Measures how much of its accuracy a model keeps on corrupted faces.

    fer-jax robustness --workdir runs/cnn --data data/fer2013 --out robustness
    fer-jax robustness --checkpoint my.safetensors --data data/mine --out out --limit 500

Sixteen corruptions (noise, blur, contrast, brightness, JPEG, low resolution, rotation, covered eyes or
mouth, crops that are too tight, too wide or shifted) in five severities each: 81 evaluations of the split.
OUT gets robustness.md (start there), robustness.json (every figure), robustness.csv (a row for each
severity) and pictures. --limit N takes about N faces in the classes' shares: with 500 an interval is some 4
points to either side. The same command again goes on where it was stopped.
"""

import argparse
import hashlib
import shutil

from fer_jax.commands import common
from fer_jax.evaluation import leakage_policy
from fer_jax.pretrained.registry import network_name

SEED = 0


def main(argv: list[str] | None = None) -> int:
    parser = common.make_parser(__doc__, out="folder for the report")
    parser.add_argument(
        "--limit", type=common.at_least_one, metavar="N", help="only about N of the split's faces"
    )
    common.add_labels(parser)
    common.add_classes(parser)
    common.add_training_data(parser)
    common.add_batch_size(parser, 256)
    return common.run(measure, parser.parse_args(argv))


def measure(args: argparse.Namespace) -> int:
    """Predicts everything and writes the report; the exit code."""
    import jax

    from fer_jax.data import splits
    from fer_jax.evaluation import labelled_split
    from fer_jax.evaluation.metrics import classification
    from fer_jax.evaluation.robustness import degradation, robustness_report

    trained = common.open_weights(args)
    judged, facts = common.load_labelled(trained, args.data, args.split, args.labels, args.classes)
    faces, numbers = judged.faces, judged.kept
    out, size = common.open_folder(args.out), len(faces)
    groups = splits.duplicate_groups(faces.images)
    if args.limit and args.limit < size:
        shares = {"kept": args.limit / size, "rest": 1 - args.limit / size}
        part = splits.stratified_group_split(faces.labels, groups, shares, SEED)["kept"]
        faces, groups, numbers = faces.take(part), groups[part], numbers[part]
    copies = labelled_split.find_copies(trained, faces.images, facts, [args.data, *args.training_data])

    def predict(images):
        return trained.predict(
            images, num_classes=len(judged.names), batch_size=args.batch_size, progress=False
        )

    weights = [hashlib.sha256(leaf.tobytes()).hexdigest() for leaf in jax.tree.leaves(trained.variables)]
    images = [facts["data_hash"], facts["split"], numbers.tolist()]
    keep = degradation.keep_for(
        out / "unfinished", [weights, trained.normalization, judged.names, images, SEED]
    )
    predictions = degradation.predict_all(predict, faces.images, numbers=numbers, seed=SEED, keep=keep)
    accuracy = classification.accuracy(predictions[degradation.CLEAN], faces.labels)
    number = leakage_policy.note_test(facts, accuracy, f"robustness, {len(faces)} faces")
    facts |= {"split_size": size, "test_evaluations": number}
    report = robustness_report.write_report(
        out, predictions, faces, groups, numbers=numbers, seed=SEED, facts=facts, copies=copies
    )
    shutil.rmtree(keep)
    network = network_name(trained.source, report["model"])
    print(f"{network} on {len(faces):,} of {size:,} faces of {args.split}\n")
    rows = {"clean accuracy": ("accuracy", report["clean"])}
    rows["mean corruption accuracy"] = ("value", report["mean_corruption_accuracy"])
    rows["kept of the clean accuracy"] = ("value", report["kept"])
    for name, (key, figure) in rows.items():
        print("  {:28} {:.4f}   95 % {:.4f} - {:.4f}".format(name, figure[key], *figure["interval_95"]))
    print(f"\nreport: {out / 'robustness.md'}")
    return 0
