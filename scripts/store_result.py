"""Stores the predictions and metadata of a run, a report, or an ablation in results/NAME, for RESULTS.md.

    python scripts/store_result.py runs/cnn --name cnn --hardware "two CPU cores" \\
        --command "python -m fer_jax.main --config configs/cnn.py" --robustness evaluation/robustness
    python scripts/store_result.py runs/ablation --name ablation --commit fc5796f --hardware "one H100" \\
        --command "fer-jax sweep --baseline ..."
    make report

An ablation is the output folder of fer-jax sweep --baseline. A run directory records the commit and the
duration of the training; for other sources, pass --commit and --minutes. Afterward, `make report` updates
RESULTS.md and the README's table. A name that is already stored requires --replace.
"""

import argparse
import pathlib
import sys

from fer_jax.commands import common

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("source", type=pathlib.Path, metavar="RUN_OR_REPORT_OR_ABLATION")
    add("--name", required=True, help="name of the result and of its folder in --results")
    add("--command", metavar="WORDS", help="command that trained the model")
    add("--commit", help="commit of fer_jax that trained it (default: the run's)")
    add("--hardware", metavar="WORDS", help="hardware that trained it")
    minutes = common.number(float, 1e-3)
    add("--minutes", type=minutes, metavar="N", help="duration of the training (default: the run's)")
    text = "output of fer-jax robustness for the same weights"
    add("--robustness", type=pathlib.Path, metavar="DIR", help=text)
    add("--replace", action="store_true", help="replace a stored result of the same name")
    add("--results", type=pathlib.Path, default=ROOT / "results", help="folder of all results")
    return common.run(store, parser.parse_args(argv))


def store(args: argparse.Namespace) -> int:
    """Stores the result; returns the exit code."""
    from fer_jax.evaluation.compare import result_store

    folder = args.results / args.name
    if folder.parent != args.results:
        raise ValueError(f"--name {args.name}: expected the name of a folder, without a slash")
    seconds = None if args.minutes is None else 60 * args.minutes
    run = dict(command=args.command, commit=args.commit, hardware=args.hardware, seconds=seconds)
    if (args.source / "results.json").is_file():
        if args.robustness:
            raise ValueError("--robustness requires a run or a report as source, not an ablation")
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
