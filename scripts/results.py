"""Generates RESULTS.md, the README's table, and all reports from the stored predictions.

    python scripts/results.py            # or make report
    python scripts/results.py --check    # checks whether RESULTS.md and README.md are up to date

Reads results/NAME/ (see store_result.py). Writes RESULTS.md, its figures in results/, the README's table
between its two marks, and the reports and comparisons in --out.
"""

import argparse
import difflib
import pathlib
import sys

from fer_jax.commands import common

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 if --check finds a difference, 2 if a file cannot be read."""
    parser = common.plain_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something differs")
    parser.add_argument(
        "--root", type=pathlib.Path, default=ROOT, help="folder of README.md, RESULTS.md and results/"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT / "runs/results", help="for reports (default: runs/results)"
    )

    def work(args: argparse.Namespace) -> int:
        return check(args.root) if args.check else write(args.root, args.out)

    return common.run(work, parser.parse_args(argv))


def write(root: pathlib.Path, out: pathlib.Path) -> int:
    """Writes all pages and reports; returns the exit code."""
    from fer_jax.evaluation.compare import comparison_page, result_store, results_page
    from fer_jax.io_utils import write_atomically

    folders = result_store.folders(root / results_page.FOLDER)
    for folder in folders:
        result_store.write_report(folder, out / folder.name)
        print(out / folder.name / "report.md", flush=True)
    results = results_page.collect(root / results_page.FOLDER)
    for title, group in results.compared.items():
        comparison_page.write(out / "comparisons" / title, group.found)
        print(out / "comparisons" / title / "compare.md")
    results_page.draw(root, results)
    for path, text in results_page.pages(root, results).items():
        write_atomically(path, text.encode())
        print(path)
    return 0


def check(root: pathlib.Path) -> int:
    """Prints the lines that differ; returns the exit code."""
    from fer_jax.evaluation.compare import results_page

    results = results_page.collect(root / results_page.FOLDER)
    code = 0
    for path, text in results_page.pages(root, results).items():
        there = path.read_text().splitlines() if path.is_file() else []
        names = (path.name, f"{path.name} from the stored results")
        if lines := list(difflib.unified_diff(there, text.splitlines(), *names, n=0, lineterm="")):
            print("\n".join(lines))
            code = 1
    if code:
        print("\nerror: these lines do not match results/; run: make report", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
