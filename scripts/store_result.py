"""Stores predictions and metadata of a run, a report or an ablation in results/NAME, for the results page.

    python scripts/store_result.py runs/cnn --name cnn --hardware "two CPU cores" \\
        --command "python -m fer_jax.main --config configs/cnn.py" --robustness evaluation/robustness
    python scripts/store_result.py runs/ablation --name ablation --commit fc5796f --hardware "one H100" \\
        --command "fer-jax sweep --baseline ..."
    make report

An ablation is the folder of fer-jax sweep --baseline. --minutes is the duration of the training, unless the
source is a run's directory, which records both it and the commit. `make report` then updates RESULTS.md and
the README's table. A name that is already stored is refused without --replace.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fer_jax.commands import common  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    parser.add_argument("source", type=pathlib.Path, metavar="RUN_OR_REPORT_OR_ABLATION")
    parser.add_argument("--name", required=True, help="of the result: its folder in --results")
    parser.add_argument("--command", metavar="WORDS", help="that trained the model")
    parser.add_argument("--commit", help="of fer_jax that trained it (default: the run's)")
    parser.add_argument("--hardware", metavar="WORDS", help="on which it was trained")
    parser.add_argument("--minutes", type=float, metavar="N", help="of the training (default: the run's)")
    parser.add_argument(
        "--robustness", type=pathlib.Path, metavar="DIR", help="output of fer-jax robustness, same weights"
    )
    parser.add_argument("--replace", action="store_true", help="the result that is stored by that name")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "results", help="(default: results)")
    return common.run(store, parser.parse_args(argv))


def store(args: argparse.Namespace) -> int:
    """Stores the result; returns the exit code."""
    from fer_jax.evaluation.compare import result_store

    folder = args.results / args.name
    if folder.parent != args.results:
        raise ValueError(f"--name {args.name}: expected a folder's name, without a slash")
    if args.minutes is not None and args.minutes <= 0:
        raise ValueError(f"--minutes {args.minutes:g}: expected more than 0")
    seconds = None if args.minutes is None else 60 * args.minutes
    run = result_store.StoredRun(args.command, args.commit, args.hardware, seconds)
    if (args.source / "results.json").is_file():
        if args.robustness:
            raise ValueError("--robustness goes with a run or a report, not with an ablation")
        result_store.store_ablation(args.source, folder, run, args.replace)
    else:
        result_store.store(args.source, folder, run, args.robustness, args.replace)
    size = sum(path.stat().st_size for path in folder.iterdir())
    own = args.results.resolve() == ROOT / "results"
    following = "make report" if own else f"python scripts/results.py --root {args.results.resolve().parent}"
    print(f"{folder}: {size / 1000:,.0f} kB\nnext: {following}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
