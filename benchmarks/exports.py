"""Exports a trained network in every format and precision, and compares them all with it.

    python benchmarks/exports.py --checkpoint my.safetensors --data data/fer2013 --out exports

OUT gets the exports, exports.json and exports.md: size, largest difference in probability on 512 faces, share
of the same predictions on them, accuracy on the whole validation split and its change, milliseconds for one
face and for 64. The exports and the network take turns, three rounds; the figure is the median of the rounds'
medians. Measure with nothing else running.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.commands import common  # noqa: E402

ROUNDS = 3
OURS = "fer_jax"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common.add_weights(parser)
    parser.add_argument("--data", required=True, metavar="DATA", help="made by fer-jax prepare")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the exports and the table")

    def work(args) -> int:
        print(benchmark(args))
        return 0

    return common.run(work, parser.parse_args(argv))


def benchmark(args) -> str:
    """Writes everything; returns the table."""
    from fer_jax.evaluation import cost
    from fer_jax.inference.export import check, export
    from fer_jax.inference.export.program import Program

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
    return table(result)


def table(result: dict) -> str:
    """The figures as a Markdown table."""
    first = result["exports"][0]
    lines = [
        f"On {first['of']}, {result['hardware']}.",
        "",
        "| format | precision | MB | largest difference | same prediction | accuracy | 1 face, ms | 64, ms |",
        "|---|---|---|---|---|---|---|---|",
        f"| {OURS} | float32 | | | | {first['accuracy_of_the_network']:.2%} | "
        f"{result['milliseconds']['1']:.2f} | {result['milliseconds']['64']:.0f} |",
    ]
    for row in result["exports"]:
        lines.append(
            f"| {row['format']} | {row['precision']} | {row['bytes'] / 1e6:.1f} | "
            f"{row['largest_difference']:.1e} | {row['same_prediction']:.2%} | {row['accuracy']:.2%} "
            f"({100 * row['accuracy_change']:+.2f}) | {row['milliseconds']['1']:.2f} | "
            f"{row['milliseconds']['64']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
