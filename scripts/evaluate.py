"""Evaluates a trained model on one split and writes a report with pictures.

    python scripts/evaluate.py --workdir runs/cnn --data data/fer2013 --out evaluation
    python scripts/evaluate.py --checkpoint my.safetensors --data data/mine --split test --out out

OUT gets report.md (start there), report.json (every figure, the configuration, where the weights
and the data come from), predictions.csv (each image's id, label, prediction and seven
probabilities) and pictures. Every image counts once, whatever the batch size and the number of
devices.

--tta averages several views of each face: "flip" the face and its mirror image, "tencrop" five
crops and their mirror images. They cost 2 and 10 times as much as "none".
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.data.records import SPLITS  # noqa: E402

# What of a checkpoint's facts an evaluation cannot do without.
NEEDED_FACTS = (
    "model.name",
    "model.kwargs",
    "preprocess.image_size",
    "preprocess.channels",
    "preprocess.mean",
    "preprocess.std",
    "preprocess.fill",
    "preprocess.interpolation",
    "emotions",
    "data",
    "data_hash",
)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--workdir", metavar="RUN", help="a run's directory; its best weights")
    weights.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="weights (.safetensors), or one step of a run (RUN/checkpoints/STEP)",
    )
    parser.add_argument("--data", required=True, metavar="DATA", help="made by scripts/prepare_data.py")
    parser.add_argument("--split", default="validation", choices=SPLITS, help="(default: validation)")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the report")
    parser.add_argument(
        "--tta",
        default="none",
        choices=("none", "flip", "tencrop"),
        help="test-time augmentation (default: none)",
    )
    parser.add_argument(
        "--batch_size", type=int, default=256, metavar="N", help="images at a time (default: 256)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments are parsed, so that --help and a wrong flag take no time.
    from fer_jax import failures

    try:
        report = evaluate(args)
    except Exception as error:
        reason = failures.explain(error, args.out)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped before the report was written", file=sys.stderr)
        return 130
    print(summary(report, args.out))
    return 0


def evaluate(args: argparse.Namespace) -> dict:
    """Loads, predicts and writes the report; returns what report.json holds."""
    import jax

    from fer_jax import checkpoints, platform, steps
    from fer_jax.data import builder, splits
    from fer_jax.evaluation import predict, report

    platform.tune_cpu()
    weights = args.checkpoint or str(Path(args.workdir) / checkpoints.BEST_WEIGHTS)
    if args.workdir and not Path(weights).is_file():
        raise FileNotFoundError(
            f"there is no {weights}: --workdir takes the directory of a run, which gets that file at its "
            "first evaluation; for other weights use --checkpoint"
        )
    variables, facts = checkpoints.load_weights(weights)
    model = _model(weights, variables, facts)
    manifest = builder.read_manifest(args.data)
    size, channels = facts["preprocess"]["image_size"], facts["preprocess"]["channels"]
    if manifest["channels"] not in (1, channels):
        raise ValueError(
            f"the faces of {args.data} have {manifest['channels']} channels (colour) and the model "
            f"of {weights} takes {channels} (grey): prepare grey copies of the images, or evaluate "
            f"a model that was trained in colour"
        )
    _check_writable(Path(args.out))
    faces = builder.load(args.data, args.split, image_size=_loaded_size(facts, manifest))
    preprocess = {key: value for key, value in facts["preprocess"].items() if key != "image_size"}
    forward = predict.compile_forward(
        steps.make_forward(model, size=size, **preprocess), platform.compiler_options()
    )
    probs = predict.predict(forward, variables, faces.images, batch_size=args.batch_size, tta=args.tta)
    return report.write_report(
        args.out,
        probs,
        faces.labels,
        faces.ids,
        facts=facts
        | {
            "split": args.split,
            "tta": args.tta,
            "checkpoint": weights,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
            "data": {key: manifest[key] for key in ("name", "source_kind", "splits")},
            "data_hash": manifest["content_hash"],
            "trained_data": facts["data"],
            "trained_data_hash": facts["data_hash"],
        },
        images=faces.images,
        groups=splits.duplicate_groups(faces.images),
    )


def _model(weights: str, variables: dict, facts: dict):
    """The network that the facts describe, if the weights are its own.

    Raises:
      ValueError: they are not, or the facts do not tell; the message names the file and what is wrong.
    """
    from fer_jax import models, state
    from fer_jax.data.emotions import EMOTIONS

    missing = [name for name in NEEDED_FACTS if not _has(facts, name)]
    if missing:
        raise ValueError(
            f"the facts in {weights} lack {', '.join(missing)}, which an evaluation needs: take weights "
            "that fer_jax's training wrote, such as RUN/best.safetensors"
        )
    if facts["emotions"] != list(EMOTIONS):
        raise ValueError(
            f"{weights} tells {facts['emotions']} apart; expected {list(EMOTIONS)}, in this order"
        )
    side, channels = facts["preprocess"]["image_size"], facts["preprocess"]["channels"]
    try:
        model = models.create(facts["model"]["name"], len(EMOTIONS), **facts["model"]["kwargs"])
        state.check_fit(variables, model, (side, side, channels))
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from error
    return model


def _has(facts: Any, name: str) -> bool:
    """Whether nested dictionaries hold a dotted name."""
    for key in name.split("."):
        if not isinstance(facts, dict) or key not in facts:
            return False
        facts = facts[key]
    return True


def _loaded_size(facts: dict, manifest: dict) -> int | None:
    """The size the training loaded faces at; otherwise their own or, if they differ, the model's."""
    if facts.get("loaded_size"):
        return facts["loaded_size"]
    return None if manifest["image_shape"] else facts["preprocess"]["image_size"]


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
        between = "   95 % {:.4f} - {:.4f}".format(*interval[key]) if key in interval else ""
        lines.append(f"  {label:18} {report[key]:.4f}{between}")
    lines += ["", f"  {'emotion':10} precision  recall      F1  images"]
    for name, row in report["per_class"].items():
        lines.append(
            f"  {name:10} {row['precision']:9.3f} {row['recall']:7.3f} {row['f1']:7.3f} {row['support']:7,}"
        )
    return "\n".join([*lines, "", report["note"], f"report: {Path(out) / 'report.md'}"])


def _check_writable(out: Path) -> None:
    """Finds out before the work, not after, that the report cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OSError(
            f"cannot write to {out} ({error.strerror}); give an --out that can be written"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
