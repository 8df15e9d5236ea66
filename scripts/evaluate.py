"""Evaluates a trained model on one split and writes a report with pictures.

    python scripts/evaluate.py --workdir runs/cnn --data data/fer2013 --out evaluation
    python scripts/evaluate.py --checkpoint my.safetensors --data data/mine --split test --out out

On data with FER+ votes the report also says how the model does against the annotators, and by how
much these agree. --labels chooses what counts as right.

OUT gets report.md (start there), report.json (every figure, the configuration, where the weights
and the data come from), predictions.csv (each image's id, label, prediction, probabilities, whether
it has a copy in the training), twins.csv and pictures. Every image counts once, whatever the batch
size and the number of devices.

Figures are given on the whole split and without the images that have a copy in the splits that the
weights were trained and selected on. Those splits are looked for in DATA and, for data of another
origin, in --training_data. An evaluation on `test` is noted in test_evaluations.jsonl beside the
weights.

--attributes takes a table of what is known of the images (a CSV file with a column id and columns of
categories such as age or source) and writes the figures of each group, and the largest gaps between
groups, into subgroups.md, subgroups.json and subgroups.png.

--tta averages several views of each face: "flip" the face and its mirror image, "tencrop" five
crops and their mirror images. They cost 2 and 10 times as much as "none".

--latency measures how long one face takes by itself on this machine, best with nothing else running.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.data.ferplus import GIVEN, RULES  # noqa: E402
from fer_jax.evaluation import command  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = command.make_parser(__doc__, out="folder for the report")
    parser.add_argument(
        "--labels",
        choices=(GIVEN, *RULES),
        metavar="LABELS",
        help=f"to judge by: {GIVEN} or a FER+ rule, {', '.join(RULES)} (default: the training's)",
    )
    parser.add_argument(
        "--training_data", metavar="DATA", help="the dataset of the training, where it is another one"
    )
    parser.add_argument(
        "--attributes", metavar="CSV", help="the figures by group, too: a column id, columns of categories"
    )
    parser.add_argument(
        "--tta",
        default="none",
        choices=("none", "flip", "tencrop"),
        help="test-time augmentation (default: none)",
    )
    parser.add_argument("--latency", action="store_true", help="measure how long one face takes")
    command.add_batch_size(parser, 256)

    def work(args: argparse.Namespace) -> int:
        print(summary(evaluate(args), args.out))
        return 0

    return command.run(work, parser.parse_args(argv))


def evaluate(args: argparse.Namespace) -> dict:
    """Loads, predicts and writes the report; returns what report.json holds."""
    from fer_jax.data import builder, splits
    from fer_jax.data.emotions import EMOTIONS
    from fer_jax.evaluation import cost, predictions, report, subgroups, subgroups_report

    trained = command.open_weights(args)
    manifest = builder.read_manifest(args.data)
    faces = trained.load_split(args.data, args.split)
    command.open_folder(args.out)
    rule = args.labels or trained.facts.get("labels", GIVEN)
    given = faces.labels
    if rule != GIVEN:
        given, faces = _relabel(faces, rule, len(trained.facts["emotions"]), args)
    groups = splits.duplicate_groups(faces.images)
    attributes = subgroups.read_table(args.attributes) if args.attributes else None
    if attributes:
        subgroups.match(attributes, faces.ids)  # which complains before the work
    probs = trained.predict(faces.images, batch_size=args.batch_size, tta=args.tta)
    names = trained.facts["emotions"]
    if rule == GIVEN and len(names) > len(EMOTIONS):
        names = list(EMOTIONS)
        probs = predictions.restrict(probs, len(names))
    facts = command.describe(trained, manifest, args.split) | {
        "emotions": names,
        "labels": rule,
        "tta": args.tta,
        "parameters": trained.parameters,
        "cost": cost.measure(trained, faces.image_shape if args.latency else None),
    }
    copies = _copies(trained, facts, faces, [args.data, args.training_data])
    if args.split == "test":
        facts["test_evaluations"] = _note_test(Path(trained.source), facts, probs, faces.labels)
    if attributes:
        found = subgroups.compare(probs, faces.labels, faces.ids, groups, attributes)
        subgroups_report.write(args.out, found)
    return report.write_report(
        args.out,
        probs,
        faces.labels,
        faces.ids,
        facts=facts,
        images=faces.images,
        groups=groups,
        copies=copies,
        given=given,
        votes=faces.votes,
    )


def _relabel(faces, rule: str, num_classes: int, args: argparse.Namespace):
    """The given labels of the faces that a FER+ rule keeps, and these faces with its labels."""
    from fer_jax.data import ferplus

    if faces.votes is None:
        raise ValueError(
            f"labels by {rule} need FER+ votes, and {args.data} has none: prepare it with "
            "scripts/prepare_data.py --ferplus fer2013new.csv, or give --labels given"
        )
    found = ferplus.labels(faces.votes, rule, num_classes)[0]
    given = faces.labels[found != ferplus.LEFT_OUT]
    if not len(given):
        raise ValueError(f"no face of {args.split} in {args.data} has a label by {rule}")
    return given, ferplus.relabel(faces, rule, num_classes)


def _copies(trained, facts: dict, faces, data_dirs: list[str | None]) -> np.ndarray | None:
    """What each image shares with the splits that the weights were made with, None if one is not at hand.

    The evaluated split itself is left out: what it had to do with the weights is said by itself.
    """
    from fer_jax.data import builder
    from fer_jax.evaluation import leakage, protocol

    used = {name: protocol.split_hash(facts["trained_data"], name) for name in protocol.used_splits(facts)}
    here = protocol.split_hash(facts["data"], facts["split"])
    wanted = {name: found for name, found in used.items() if found != here}
    if None in wanted.values():
        return None
    copies = np.zeros(len(faces), np.int8)
    for data_dir in filter(None, data_dirs):
        at_hand = protocol.find_splits(wanted, builder.describe(builder.read_manifest(data_dir)))
        for name, name_there in at_hand.items():
            others = trained.load_split(data_dir, name_there).images
            copies = np.maximum(copies, leakage.find_copies(faces.images, others))
            del wanted[name]
    return None if wanted else copies


def _note_test(weights: Path, facts: dict, probs: np.ndarray, labels: np.ndarray) -> int | None:
    """Notes an evaluation on the test split in the ledger of the weights' run."""
    from fer_jax.checkpoints import CHECKPOINTS
    from fer_jax.evaluation import protocol, statistics

    folder = weights.parent.parent if weights.parent.name == CHECKPOINTS else weights.parent
    entry = {
        "weights": weights.name,
        "step": (facts["selection"] or {}).get("step"),
        "data_hash": facts["data_hash"],
        "tta": facts["tta"],
        "accuracy": statistics.accuracy(probs, labels),
    }
    number = protocol.record_test(folder, entry)
    if number is None:
        print(
            f"note: cannot write {folder / protocol.LEDGER}: this evaluation is not counted", file=sys.stderr
        )
    return number


def summary(report: dict, out: str) -> str:
    """The main figures and where the rest is."""
    interval = report["interval_95"]
    lines = [
        f"{report['model']['name']} on {report['split']}: {report['num_examples']:,} images, "
        f"tta {report['tta']}",
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
            words = "  {:18} {:.4f}   95 % {:.4f} - {:.4f}   {:,} images without {} copies"
            numbers = (part["accuracy"], *part["interval_95"]["accuracy"], part["num_examples"])
            lines.append(words.format("accuracy", *numbers, key.removeprefix("without_")))
    lines += ["", f"  {'emotion':10} precision  recall      F1  images"]
    for name, row in report["per_class"].items():
        lines.append(
            f"  {name:10} {row['precision']:9.3f} {row['recall']:7.3f} {row['f1']:7.3f} {row['support']:7,}"
        )
    return "\n".join([*lines, "", report["note"], f"report: {Path(out) / 'report.md'}"])


if __name__ == "__main__":
    sys.exit(main())
