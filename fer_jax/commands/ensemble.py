"""Selects an ensemble of networks by their predictions on one split.

    fer-jax ensemble runs/cnn runs/small_seed_* runs/mobilenet_v3_small --out runs/ensemble
    fer-jax ensemble runs/small_seed_* --all --out runs/three_seeds

The inputs are as for fer-jax compare: runs (their report), report folders, stored results, or CSV files, all
for the same images. Selection is greedy: it starts with the most accurate network, then repeatedly adds the
one that raises the accuracy of the mean probabilities most, up to --most networks, and keeps the smallest
ensemble that reaches the highest accuracy. --all includes every network, in the given order.

Writes to OUT ensemble.md (start there), ensemble.json, ensemble.png, and predictions.csv; if the members have
reports, also a report of the ensemble. fer-jax compare and fer-jax ensemble accept OUT as an input. OUT is a
new folder or that of an earlier ensemble. If the members are runs, ensemble.md ends with the flag that
distills them into a single network.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from fer_jax.commands import common

PAGE = "ensemble.md"


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    text = "runs, reports, or CSV files of predictions to select from"
    parser.add_argument("networks", nargs="+", metavar="RUN_OR_PREDICTIONS", help=text)
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the ensemble")
    text = "maximum number of networks"
    parser.add_argument("--most", type=common.at_least_one, default=7, metavar="N", help=text)
    parser.add_argument("--all", action="store_true", help="use all networks, without selection")
    args = parser.parse_args(argv)
    if len(args.networks) < 2:
        parser.error("an ensemble needs at least two networks")
    return common.run(build, args)


def build(args: argparse.Namespace) -> int:
    """Selects, writes, and prints the ensemble; returns the exit code."""
    from fer_jax.evaluation import predictions_file
    from fer_jax.evaluation.compare import ensemble, model_results
    from fer_jax.evaluation.report import report
    from fer_jax.pretrained import weights_file

    found = model_results.load(args.networks)
    refuse_out(Path(args.out), [one.path for one in found])
    first = found[0].predictions
    splits = {one.metadata["split"] for one in found if "split" in one.metadata}
    split = splits.pop() if len(splits) == 1 else None
    out = common.open_folder(args.out)
    groups = np.arange(len(first.ids)) if first.groups is None else first.groups
    probs = [one.predictions.probs for one in found]
    result = ensemble.judge(probs, first.labels, groups, args.most, args.all)
    members = [found[place] for place in result["members"]]
    metadata = ensemble.metadata_of([one.name for one in members], [one.metadata for one in members])
    if metadata and not args.all:
        metadata["selection"] = {"split": split, "metric": "accuracy", "value": result["figures"]["accuracy"]}
    together = result.pop("probs")
    copies = [one.predictions.copies for one in members]
    copies = None if any(found is None for found in copies) else np.max(copies, axis=0)
    names = [one.name for one in found]
    runs = [args.networks[place] for place in result["members"]]
    can_teach = len(runs) > 1 and all((Path(run) / weights_file.BEST_WEIGHTS).is_file() for run in runs)
    page = ensemble.page(result, names, split, runs if can_teach else ())
    # Written first: it marks the folder as an ensemble's if the command is interrupted and run again.
    (out / PAGE).write_text(page)
    if metadata:
        of_images = {"groups": groups, "copies": copies}
        report.write_report(out, together, first.labels, first.ids, metadata=metadata, **of_images)
    else:
        for name in (model_results.REPORT, "report.md"):  # from another ensemble
            (out / name).unlink(missing_ok=True)
        named = dataclasses.replace(first, probs=together, copies=copies)
        predictions_file.write(out / model_results.PREDICTIONS, named)
    ensemble.plot(result, len(first.ids), split, out / ensemble.PICTURE)
    result |= {"split": split, "networks": names, "images": len(first.ids)}
    (out / "ensemble.json").write_text(json.dumps(result, indent=2) + "\n")
    print(page)
    print(f"ensemble: {out / PAGE}")
    return 0


def refuse_out(out: Path, inputs: list[Path]) -> None:
    """Refuses an output folder that belongs to a network, given the networks' prediction files.

    Raises:
      ValueError: it is a run directory, or contains an input or another report.
    """
    from fer_jax.evaluation.compare import model_results
    from fer_jax.pretrained.weights_file import BEST_WEIGHTS
    from fer_jax.training.run_dir import CONFIG_FILE

    written = out / model_results.PREDICTIONS
    is_input = written.resolve() in [path.resolve() for path in inputs]
    results = (model_results.REPORT, model_results.PREDICTIONS, model_results.STORED)
    others = (*results, CONFIG_FILE, BEST_WEIGHTS)
    if is_input or (not (out / PAGE).is_file() and any((out / name).exists() for name in others)):
        raise ValueError(f"--out {out} contains a network's files: choose a new folder")
