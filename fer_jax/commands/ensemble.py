"""Chooses networks that are better together, by their predictions on one split.

    fer-jax ensemble runs/cnn runs/small_seed_* runs/mobilenet_v3_small --out runs/ensemble
    fer-jax ensemble runs/small_seed_* --all --out runs/three_seeds

The networks are given as runs (their report), folders of fer-jax evaluate, stored results, or CSV files, all
of the same images: see fer-jax compare. The first taken is the best alone, then at each step the one that
raises the accuracy of the mean probabilities most, up to --most; of these as many are kept as reach the
highest accuracy. --all takes every network as it is given.

OUT gets ensemble.md (start there), ensemble.json, ensemble.png and, of members with reports, a report of the
ensemble, of others predictions.csv alone; fer-jax compare and fer-jax ensemble take either. It is a new
folder, or that of an earlier ensemble. Members that are runs can teach a single network: the page ends with
the flag `--config.distill.teachers` for that.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from fer_jax.commands import common

PAGE = "ensemble.md"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", metavar="RUN_OR_PREDICTIONS", help="what to choose from")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the ensemble")
    parser.add_argument(
        "--most", type=common.at_least_one, default=7, metavar="N", help="networks (default: 7)"
    )
    parser.add_argument("--all", action="store_true", help="take all of them")
    args = parser.parse_args(argv)
    if len(args.networks) < 2:
        parser.error("an ensemble needs two networks or more")
    return args


def main(argv: list[str] | None = None) -> int:
    return common.run(build, parse_args(argv))


def build(args: argparse.Namespace) -> int:
    """Chooses, writes and prints; the exit code."""
    from fer_jax import weights_file
    from fer_jax.evaluation import predictions_file
    from fer_jax.evaluation.compare import ensemble, model_results
    from fer_jax.evaluation.report import report

    found = model_results.load(args.networks)
    refuse_out(Path(args.out), [one.path for one in found])
    first = found[0].predictions
    splits = {one.facts["split"] for one in found if "split" in one.facts}
    split = splits.pop() if len(splits) == 1 else None
    out = common.open_folder(args.out)
    groups = np.arange(len(first.ids)) if first.groups is None else first.groups
    probs = [one.predictions.probs for one in found]
    result = ensemble.judge(probs, first.labels, groups, args.most, args.all)
    members = [found[place] for place in result["members"]]
    facts = ensemble.facts_of([one.name for one in members], [one.facts for one in members])
    if facts and not args.all:
        metric = {"metric": "accuracy", "value": result["figures"]["accuracy"]}
        facts["selection"] = {"split": split} | metric
    together = result.pop("probs")
    copies = [one.predictions.copies for one in members]
    copies = None if any(found is None for found in copies) else np.max(copies, axis=0)
    names = [one.name for one in found]
    lines = [*ensemble.page(result, names, split), "", f"![Accuracy by number]({ensemble.PICTURE})"]
    runs = [args.networks[place] for place in result["members"]]
    if len(runs) > 1 and all((Path(run) / weights_file.BEST_WEIGHTS).is_file() for run in runs):
        lines += ["", f'To teach one network what they know: `--config.distill.teachers="{tuple(runs)}"`']
    # First, as it tells the same command after a stop that the folder is an ensemble's.
    (out / PAGE).write_text("\n".join(lines) + "\n")
    if facts:
        report.write_report(out, together, first.labels, first.ids, facts=facts, groups=groups, copies=copies)
    else:
        for name in (model_results.REPORT, "report.md"):  # of another ensemble
            (out / name).unlink(missing_ok=True)
        named = dataclasses.replace(first, probs=together, copies=copies)
        predictions_file.write(out / model_results.PREDICTIONS, named)
    ensemble.plot(result, len(first.ids), split, out / ensemble.PICTURE)
    result |= {"split": split, "networks": names, "images": len(first.ids)}
    (out / "ensemble.json").write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(lines))
    print(f"\nensemble: {out / PAGE}")
    return 0


def refuse_out(out: Path, inputs: list[Path]) -> None:
    """Refuses a folder that is a network's.

    Args:
      out: the folder.
      inputs: the networks' files of predictions.

    Raises:
      ValueError: it is a run's, has an input that would be written over, or a report of something else.
    """
    from fer_jax.evaluation.compare import model_results
    from fer_jax.training.run_dir import CONFIG_FILE
    from fer_jax.weights_file import BEST_WEIGHTS

    written = out / model_results.PREDICTIONS
    is_input = written.resolve() in [path.resolve() for path in inputs]
    others = (
        model_results.REPORT,
        model_results.PREDICTIONS,
        model_results.STORED,
        CONFIG_FILE,
        BEST_WEIGHTS,
    )
    if is_input or (not (out / PAGE).is_file() and any((out / name).exists() for name in others)):
        raise ValueError(f"--out {out} has a network's files: name a new folder")
