"""Measures the latency of the classifier's engines, compared with ONNX Runtime alone.

    python benchmarks/latency.py --checkpoint my.safetensors

Each row is a batch size; the time is from uint8 pixels to probabilities. The sides are processes that take
turns, and the latency is the median of the best round. The engines take faces in the size of detectors'
crops, the export in the size of the network's input. Run it on an otherwise idle machine.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from interleaved import Side, measure, serve

from fer_jax.commands import common

SIDES = ("onnx", "jax", "ONNX Runtime")
SIZES = (1, 8, 64, 256)
ROUNDS, FACES = 3, 512  # approximate number of faces timed in a round


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    common.add_weights(parser)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # for its child processes
    return common.run(benchmark, parser.parse_args(argv))


def benchmark(args: argparse.Namespace) -> int:
    """Prints the table; returns the exit code."""
    if args.side:
        return serve_side(args)
    weights = [f"--checkpoint={args.checkpoint}"] if args.checkpoint else [f"--workdir={args.workdir}"]
    sides = {name: Side([__file__, *weights, f"--side={name}"]) for name in SIDES}
    print(
        f"| faces | {' | '.join(sides)} | ONNX Runtime / the faster engine |\n|{' --- |' * (len(sides) + 2)}"
    )
    for size in SIZES:
        found = measure(sides, str(size), ROUNDS, max(3, FACES // size))
        cells = " | ".join(f"{1000 * seconds / size:.2f}" for seconds in found.values())
        alone = found.pop("ONNX Runtime")
        print(f"| {size} | {cells} | {alone / min(found.values()):.2f} |", flush=True)
    for side in sides.values():
        side.close()
    from fer_jax.evaluation import cost

    print(f"{args.checkpoint or args.workdir}, {cost.hardware()}, milliseconds per face")
    return 0


def serve_side(args: argparse.Namespace) -> int:
    """Serves one of `SIDES` for the parent process."""
    import numpy as np

    from fer_jax.inference.classifier import Classifier
    from fer_jax.inference.export import onnx_format
    from fer_jax.inference.export.program import Program

    trained = common.open_weights(args)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZES[-1], *trained.face_shape), dtype=np.uint8)
    if args.side in ("onnx", "jax"):
        run = Classifier(trained, SIZES, args.side)
    else:
        program = Program(trained)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            onnx_format.write(program, path, "float32", None)
            run, pixels = onnx_format.load(path), program.fit(pixels)
    serve({str(size): lambda size=size: run(pixels[:size]) for size in SIZES}, "cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
