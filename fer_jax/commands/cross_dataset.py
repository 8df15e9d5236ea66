"""Evaluates every checkpoint on every dataset.

    fer-jax cross-dataset --checkpoints runs/fer2013 runs/mine --data data/fer2013 data/mine \\
        --split test --out runs/cross

Writes to OUT cross.md, cross.json, and cross.png: accuracy and macro F1 of each checkpoint (a run directory,
a .safetensors file, or a bundled network) on each dataset, with 95 % intervals over groups of identical
images, and whether the dataset was used in training. Predictions are in OUT/CHECKPOINT/DATASET.csv. Every
dataset must have the split. Datasets have the seven emotions; --contempt selects how a network with the class
contempt is scored. Evaluations on test are recorded next to the weights.
"""

import argparse
from pathlib import Path

from fer_jax.commands import common
from fer_jax.pretrained.registry import find_weights


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    text = "run directories, weights files, or bundled network names"
    parser.add_argument("--checkpoints", nargs="+", required=True, metavar="PATH", help=text)
    text = "datasets from fer-jax prepare"
    parser.add_argument("--data", nargs="+", required=True, type=Path, metavar="DATA", help=text)
    common.add_split(parser, "split of each dataset to evaluate")
    parser.add_argument("--out", required=True, type=Path, metavar="OUT", help="folder for the matrix")
    text = "for eight-class networks: exclude contempt, or count it as an error"
    parser.add_argument("--contempt", choices=("drop", "wrong"), default="drop", help=text)
    common.add_batch_size(parser, 256)
    return common.run(cross, parser.parse_args(argv))


def cross(args: argparse.Namespace) -> int:
    """Evaluates, writes and prints the matrix; returns the exit code."""
    from fer_jax import runtime
    from fer_jax.evaluation.compare import cross_dataset

    checkpoints = [Path(find_weights(name)) for name in args.checkpoints]
    runtime.tune_cpu()
    common.open_folder(args.out)
    found = cross_dataset.evaluate(
        checkpoints, args.data, args.split, args.out, contempt=args.contempt, batch_size=args.batch_size
    )
    print(cross_dataset.write(args.out, found))
    print(f"matrix: {args.out / 'cross.md'}")
    return 0
