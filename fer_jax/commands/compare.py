"""Compares models on the same images: a table, pairwise tests, and figures.

    fer-jax compare runs/cnn runs/mobilenet_v3_small --out runs/comparison
    fer-jax compare runs/cnn keras.csv --data data/fer2013 --split validation --out comparison

The inputs are runs (their report), report folders, stored results, or CSV files from any framework, with a
column id and a column of probabilities for each of angry, disgust, fear, happy, sad, surprise, neutral, and a
row for every image of a split. Reports include labels and duplicates; for CSV files these are looked up by id
in --data, and the model is assumed to be trained on its train split (and, for --split test, on validation).

Writes to OUT compare.md (start there), compare.json, and figures: accuracy, macro F1, accuracy without
duplicates, and calibration error with 95 % intervals; parameters, FLOPs, latency, and training time where a
report has them (see fer-jax evaluate --latency); McNemar's test and the paired bootstrap for each pair of
models. Runs that differ only in their seed are also summarized together.
"""

import argparse
import functools
from pathlib import Path

from fer_jax.commands import common
from fer_jax.data.sources.record import SPLITS


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    text = "runs, report folders, or CSV files of predictions to compare"
    parser.add_argument("models", nargs="+", metavar="RUN_OR_PREDICTIONS", help=text)
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the comparison")
    parser.add_argument("--data", metavar="DATA", help="dataset that provides labels for CSV files")
    common.add_split(parser, "split of --data that the CSV files cover")
    return common.run(compare, parser.parse_args(argv))


def compare(args: argparse.Namespace) -> int:
    """Writes the comparison and prints a summary; returns the exit code."""
    from fer_jax.evaluation.compare import comparison_page, model_results, significance

    common.open_folder(args.out)
    split = load_split(args.data, args.split) if args.data else None
    found = significance.compare(model_results.load(args.models, split))
    comparison_page.write(args.out, found)
    print("\n".join(comparison_page.summary(found)))
    print(f"\ncomparison: {Path(args.out) / 'compare.md'}")
    return 0


def load_split(data_dir: str, split: str):
    """Loads the IDs, labels, and duplicates of a split as a `model_results.Split`."""
    import numpy as np

    from fer_jax.data import near_duplicates, splits
    from fer_jax.data.dataset import read
    from fer_jax.evaluation import leakage
    from fer_jax.evaluation.compare import model_results

    manifest = read.read_manifest(data_dir)
    size = None if manifest["image_shape"] else near_duplicates.SIDE
    faces = read.load(data_dir, split, image_size=size)

    @functools.cache
    def copies() -> np.ndarray:
        kinds = np.zeros(len(faces), np.int8)
        for other in SPLITS[: SPLITS.index(split)]:
            if other in manifest["splits"]:
                others = read.load(data_dir, other, image_size=size).images
                kinds = np.maximum(kinds, leakage.find_duplicates(faces.images, others))
        return kinds

    return model_results.Split(faces.ids, faces.labels, splits.duplicate_groups(faces.images), copies)
