"""Exports a trained network in every format and precision, and compares the exports with the network.

    python benchmarks/exports.py --checkpoint my.safetensors --data data/fer2013 --out exports

Writes the exports, exports.json, and exports.md to OUT. The table has the size, the largest difference in
probability and the share of equal predictions on 512 faces, the accuracy on the validation split and its
change, and the latency for 1 and 64 faces in milliseconds. The exports and the network are timed in turns;
the latency is the median of the medians of three rounds. Run it on an otherwise idle machine.
"""

import argparse
import json
import sys

import numpy as np

from fer_jax import tables
from fer_jax.commands import common
from fer_jax.evaluation import cost
from fer_jax.inference.export import check, export
from fer_jax.inference.export.program import Program

ROUNDS = 3
OURS = "fer_jax"


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    common.add_weights(parser)
    parser.add_argument("--data", required=True, metavar="DATA", help="dataset from fer-jax prepare")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the exports and the table")
    return common.run(benchmark, parser.parse_args(argv))


def benchmark(args: argparse.Namespace) -> int:
    """Writes the exports and their measurements, and prints the table; returns the exit code."""
    program = Program(common.open_weights(args))
    out, faces = common.open_folder(args.out), check.load_faces(program, args.data)
    rows, runs = [], {OURS: program.run}
    for name in export.FORMATS:
        form = export.open_format(name)
        for precision in form.PRECISIONS:
            path = out / f"{precision}.{name}"
            found = export.export(program, name, path, precision, faces)["verified"]
            rows.append({"format": name, "precision": precision, "bytes": path.stat().st_size} | found)
            runs[name, precision] = form.load(path)
    times = [
        {key: check.latency(run, faces.images[: check.BATCH]) for key, run in runs.items()}
        for _ in range(ROUNDS)
    ]
    medians = {
        key: {size: float(np.median([one[key][size] for one in times])) for size in times[0][key]}
        for key in runs
    }
    for row in rows:
        row["milliseconds"] = medians[row["format"], row["precision"]]
    result = {"hardware": cost.hardware(), "milliseconds": medians[OURS], "exports": rows}
    (out / "exports.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "exports.md").write_text(table(result) + "\n")
    print(table(result))
    return 0


def table(result: dict) -> str:
    """Returns the measurements as a Markdown table."""
    head = ("format", "precision", "MB", "largest difference", "same prediction", "accuracy")
    first, own = result["exports"][0], result["milliseconds"]
    rows = [(OURS, "float32", "", "", "", f"{first['accuracy_of_the_network']:.2%}", *_times(own))]
    for row in result["exports"]:
        accuracy = f"{row['accuracy']:.2%} ({100 * row['accuracy_change']:+.2f})"
        figures = (f"{row['bytes'] / 1e6:.1f}", f"{row['largest_difference']:.1e}")
        cells = (*figures, f"{row['same_prediction']:.2%}", accuracy, *_times(row["milliseconds"]))
        rows.append((row["format"], row["precision"], *cells))
    lines = [f"On {first['of']}, {result['hardware']}.", ""]
    return "\n".join([*lines, *tables.table((*head, "1 face, ms", "64, ms"), rows)])


def _times(milliseconds: dict[str, float]) -> tuple[str, str]:
    return f"{milliseconds['1']:.2f}", f"{milliseconds['64']:.0f}"


if __name__ == "__main__":
    sys.exit(main())
