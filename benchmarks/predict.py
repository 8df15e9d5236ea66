"""Measures the time to predictions, compared with a minimal script (`onnx_script.py`).

    python benchmarks/predict.py --photo photo.jpg --video clip.mp4

Each row has the median time of entire processes, including the start of the interpreter, and their peak
memory. The sides take turns and use the same detector (YuNet), network, and weights:

* one photo, two photos, a folder of 100 photos, a video: `fer-jax predict` and the script
* Predictor: a process that imports and loads `fer_jax.Predictor` and predicts one photo

Run it on an otherwise idle machine.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

from fer_jax.commands import common
from fer_jax.errors import ExplainedError
from fer_jax.pretrained.registry import BUNDLED, DEFAULT

YUNET = resources.files("fer_jax.inference.detection") / "face_detection_yunet_2023mar.onnx"
SCRIPT = Path(__file__).with_name("onnx_script.py")
PHOTOS = 100


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    parser.add_argument("--photo", required=True, metavar="FILE")
    parser.add_argument("--video", metavar="FILE")
    parser.add_argument("--model", default=DEFAULT, choices=BUNDLED)
    parser.add_argument("--rounds", type=common.at_least_one, default=5, help="rounds after the warm-up")
    return common.run(benchmark, parser.parse_args(argv))


def benchmark(args: argparse.Namespace) -> int:
    """Prints the table; returns the exit code."""
    for path in filter(None, (args.photo, args.video)):  # before the export, which takes a while
        open(path).close()
    # This process imports little, because Linux counts its memory toward the peak of processes that it forks.
    with tempfile.TemporaryDirectory() as folder:
        export, photos = Path(folder, "model.onnx"), Path(folder, "photos")
        run(["-m", "fer_jax", "export", "--checkpoint", args.model, "--format", "onnx", "--out", export])
        photos.mkdir()
        copies = [photos / f"{number}{Path(args.photo).suffix}" for number in range(PHOTOS)]
        for copy in copies:
            shutil.copy(args.photo, copy)

        def sides(ours: list, inputs: list) -> dict[str, list]:
            script = [SCRIPT, export, YUNET, *inputs]
            return {"fer_jax": ["-m", "fer_jax", "predict", "--model", args.model, *ours], "script": script}

        rows = {
            "one photo": sides([args.photo], [args.photo]),
            "two photos": sides(copies[:2], copies[:2]),
            f"folder of {PHOTOS} photos": sides([photos], copies),
        }
        call = f"from fer_jax import Predictor; Predictor.load({args.model!r})({args.photo!r})"
        rows["Predictor, one photo"] = {"fer_jax": ["-c", call], "script": rows["one photo"]["script"]}
        if args.video:
            rows["video"] = sides([args.video], [args.video])
        print("| what | fer_jax | script | fer_jax / script |\n| --- | --- | --- | --- |")
        for name, commands in rows.items():
            found = measure(commands, args.rounds)
            cells = [f"{seconds:.2f} s, {memory:.0f} MB" for seconds, memory in found.values()]
            ratio = found["fer_jax"][0] / found["script"][0]
            print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)
    from fer_jax.evaluation import cost

    print(f"{args.model}, {cost.hardware()}, median of {args.rounds} rounds")
    return 0


def measure(commands: dict[str, list], rounds: int) -> dict[str, tuple[float, float]]:
    """Returns each side's median seconds and peak memory in MB, after an untimed round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(1 + rounds):
        for name, command in commands.items():
            found[name].append(run(command))
    columns = {name: tuple(zip(*of[1:], strict=True)) for name, of in found.items()}
    return {name: (statistics.median(seconds), max(memory)) for name, (seconds, memory) in columns.items()}


def run(arguments: list) -> tuple[float, float]:
    """Runs `python ARGUMENTS`; returns its seconds and peak memory in MB.

    Raises:
      ExplainedError: the process failed; the message quotes its output.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise ExplainedError(f"{command} ended with {process.returncode}:\n{output.read().decode()}")
    return seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
