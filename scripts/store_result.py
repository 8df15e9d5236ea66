"""Stores a run's or a report's predictions and facts in results/NAME, for the results page.

    python scripts/store_result.py runs/cnn --name cnn --commit fc5796f --hardware "two CPU cores" \\
        --command "python -m fer_jax.main --config configs/cnn.py"
    make report

--minutes is the training's time where it is not a run's directory, which tells it. `make report` then
makes RESULTS.md and the README's table anew.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=pathlib.Path, metavar="RUN_OR_REPORT")
    parser.add_argument("--name", required=True, help="of the result: its folder in --results")
    parser.add_argument("--command", metavar="WORDS", help="that trained the model")
    parser.add_argument("--commit", help="of fer_jax that trained it")
    parser.add_argument("--hardware", metavar="WORDS", help="that it was trained on")
    parser.add_argument("--minutes", type=float, metavar="N", help="that the training took")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "results", help="(default: results)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments are parsed, so that --help and a wrong flag take no time.
    from fer_jax import failures
    from fer_jax.evaluation import contenders, stored

    seconds = None if args.minutes is None else 60 * args.minutes
    folder = args.results / args.name
    try:
        if folder.parent != args.results:
            raise ValueError(f"--name {args.name}: expected a folder's name, without a slash")
        stored.store(args.source, folder, stored.Run(args.command, args.commit, args.hardware, seconds))
    except Exception as error:
        reason = failures.explain(error, folder)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 2
    size = (folder / contenders.STORED).stat().st_size
    print(f"{folder}: {size / 1000:,.0f} kB of predictions\nnext: make report")
    return 0


if __name__ == "__main__":
    sys.exit(main())
