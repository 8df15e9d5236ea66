"""Evaluates every checkpoint on every dataset: how a model does on faces of another origin.

    fer-jax cross-dataset --checkpoints runs/fer2013 runs/mine --data data/fer2013 data/mine \\
        --split test --out runs/cross

OUT gets cross.md, cross.json and cross.png: accuracy and macro F1 of each checkpoint (a run's directory, a
.safetensors file or the name of one of the package's networks) on each dataset's split, with 95 % intervals
by groups of identical images, and for each cell whether the dataset had a part in the training.
OUT/CHECKPOINT/DATASET.csv has the predictions. A dataset without the split is refused. Datasets have the
seven emotions; what became of other classes is said when a dataset is prepared (fer-jax prepare --map). A
checkpoint that tells contempt apart is judged as --contempt says, and so does the page. An evaluation on test
is noted beside the weights.
"""

import argparse
from pathlib import Path

from fer_jax.commands import common
from fer_jax.data.sources.record import SPLITS
from fer_jax.pretrained.registry import find_weights


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoints", nargs="+", required=True, metavar="PATH", help="runs, weights or the package's names"
    )
    parser.add_argument(
        "--data", nargs="+", required=True, type=Path, metavar="DATA", help="made by fer-jax prepare"
    )
    parser.add_argument("--split", default="test", choices=SPLITS, help="of each dataset (default: test)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the matrix")
    parser.add_argument(
        "--contempt",
        choices=("drop", "wrong"),
        default="drop",
        help="of a checkpoint that knows it: rule it out, or count it as a wrong answer (default: drop)",
    )
    common.add_batch_size(parser, 256)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return common.run(cross, parse_args(argv))


def cross(args: argparse.Namespace) -> int:
    """Evaluates every checkpoint on every dataset, writes and prints the matrix; the exit code."""
    from fer_jax import runtime
    from fer_jax.evaluation.compare import cross_dataset

    checkpoints = [Path(find_weights(name)) for name in args.checkpoints]
    runtime.tune_cpu()
    common.open_folder(args.out)
    found = cross_dataset.evaluate(
        checkpoints, args.data, args.split, args.out, contempt=args.contempt, batch_size=args.batch_size
    )
    cross_dataset.write(args.out, found)
    print("\n".join(cross_dataset.result_tables(found)))
    print(f"\nmatrix: {args.out / 'cross.md'}")
    return 0
