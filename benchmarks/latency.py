"""How long the predictor's classifier takes over faces, beside ONNX Runtime with the same network.

    python benchmarks/latency.py --checkpoint my.safetensors

Each row is a number of faces classified at once, from uint8 pixels to probabilities; the sides take turns,
and the figure is the median. For networks that take faces at their input's size, in its colours. Needs the
extra `export`. Measure with nothing else running.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.commands import common  # noqa: E402

SIZES = (1, 8, 64, 256)
WARM_UP, FACES = 3, 3000  # rounds untimed; faces timed at each size, about


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common.add_weights(parser)
    return common.run(benchmark, parser.parse_args(argv))


def benchmark(args: argparse.Namespace) -> int:
    """Prints the table; the exit code."""
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
        sides = {"fer_jax": Classifier(trained, SIZES), "ONNX Runtime": onnx_format.load(path)}
    print(f"{trained.source}, {cost.hardware()}, milliseconds a face")
    print(f"| faces | {' | '.join(sides)} | ONNX Runtime / fer_jax |\n|{' --- |' * (len(sides) + 2)}")
    pixels = np.random.default_rng(0).integers(0, 256, (SIZES[-1], *trained.input_shape), dtype=np.uint8)
    for size in SIZES:
        seconds = {name: [] for name in sides}
        for turn in range(WARM_UP + max(10, FACES // size // 10)):
            for name, run in sides.items():
                start = time.perf_counter()
                run(pixels[:size])
                if turn >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
        found = {name: 1000 * float(np.median(times)) / size for name, times in seconds.items()}
        cells = " | ".join(f"{value:.3f}" for value in found.values())
        print(f"| {size} | {cells} | {found['ONNX Runtime'] / found['fer_jax']:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
