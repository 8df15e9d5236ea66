"""Measures the latency of the classifier's engines, beside ONNX Runtime with an export of the same network.

    python benchmarks/latency.py --checkpoint my.safetensors

Each row is a number of faces classified at once, from uint8 pixels to probabilities; the sides take turns,
and the figure is the median. The engines take faces as detectors crop them, the export those of the network's
input. Measure with nothing else running.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from interleaved import medians

from fer_jax.commands import common

SIZES = (1, 8, 64, 256)
WARM_UP, FACES = 3, 3000  # untimed rounds; approximate number of faces timed at each size


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    common.add_weights(parser)
    return common.run(benchmark, parser.parse_args(argv))


def benchmark(args: argparse.Namespace) -> int:
    """Prints the table; returns the exit code."""
    import numpy as np

    from fer_jax.evaluation import cost
    from fer_jax.inference.classifier import Classifier
    from fer_jax.inference.export import check, onnx_format
    from fer_jax.inference.export.export import export
    from fer_jax.inference.export.program import Program

    trained = common.open_weights(args)
    program = Program(trained)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export(program, "onnx", path, "float32", check.load_faces(program))
        alone = onnx_format.load(path)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZES[-1], *trained.face_shape), dtype=np.uint8)
    sides = {f"engine {name}": (Classifier(trained, SIZES, name), pixels) for name in ("onnx", "jax")}
    sides["ONNX Runtime"] = alone, program.fit(pixels)
    print(f"{trained.source}, {cost.hardware()}, milliseconds a face")
    print(
        f"| faces | {' | '.join(sides)} | ONNX Runtime / the faster engine |\n|{' --- |' * (len(sides) + 2)}"
    )
    for size in SIZES:
        calls = {name: lambda run=run, of=of, n=size: run(of[:n]) for name, (run, of) in sides.items()}
        found = medians(calls, max(10, FACES // size // 10), WARM_UP)
        cells = " | ".join(f"{1000 * seconds / size:.3f}" for seconds in found.values())
        alone = found.pop("ONNX Runtime")
        print(f"| {size} | {cells} | {alone / min(found.values()):.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
