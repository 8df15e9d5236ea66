"""Chooses networks that are better together, by their predictions on one split.

    python scripts/ensemble.py runs/cnn runs/small_seed_* runs/mobilenet_v3_small --out runs/ensemble
    python scripts/ensemble.py runs/small_seed_* --all --out runs/three_seeds

What is chosen from are runs (their report), folders of evaluate.py, stored results, or CSV files, all of the
same images: see compare.py. The first taken is the best alone, then at each step the one that raises the
accuracy of the mean probabilities most, up to --most; of these as many are kept as reach the highest
accuracy. --all takes every network as it is given.

OUT gets ensemble.md (start there), ensemble.json, ensemble.png and predictions.csv, which compare.py and
ensemble.py take. Members that are runs can teach a single network: the page ends with the flag for
`--config.distill.teachers`.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.evaluation import command  # noqa: E402


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", metavar="RUN_OR_PREDICTIONS", help="what to choose from")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the ensemble")
    parser.add_argument(
        "--most", type=command.at_least_one, default=7, metavar="N", help="networks (default: 7)"
    )
    parser.add_argument("--all", action="store_true", help="take all of them")
    args = parser.parse_args(argv)
    if len(args.networks) < 2:
        parser.error("an ensemble needs two networks or more")
    return args


def main(argv: list[str] | None = None) -> int:
    return command.run(build, parse_args(argv))


def build(args: argparse.Namespace) -> int:
    """Chooses, writes and prints; the exit code."""
    from fer_jax.evaluation import contenders, ensemble, predictions

    found = contenders.load(args.networks)
    first = found[0].predictions
    splits = {one.facts["split"] for one in found if "split" in one.facts}
    split = splits.pop() if len(splits) == 1 else "the split"
    out = command.open_folder(args.out)
    groups = first.groups if first.groups is not None else range(len(first.ids))
    result = ensemble.judge(
        [one.predictions.probs for one in found], first.labels, np.asarray(groups), args.most, args.all
    )
    probs = result.pop("probs")
    predictions.write(
        out / contenders.PREDICTIONS,
        predictions.Predictions(first.ids, probs, first.labels, first.names, first.groups, first.copies),
    )
    ensemble.plot(result, out / ensemble.PICTURE)
    names = [one.name for one in found]
    lines = [*ensemble.page(result, names, split), "", f"![Accuracy by number]({ensemble.PICTURE})"]
    members = [args.networks[place] for place in result["members"]]
    if all((Path(member) / "best.safetensors").is_file() for member in members):
        lines += ["", f'To teach one network what they know: `--config.distill.teachers="{tuple(members)}"`']
    (out / "ensemble.md").write_text("\n".join(lines) + "\n")
    result |= {"split": split, "networks": names, "images": len(first.ids)}
    (out / "ensemble.json").write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(lines))
    print(f"\nensemble: {out / 'ensemble.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
