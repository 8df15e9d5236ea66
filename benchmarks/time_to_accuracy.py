"""Measures the time of a recipe to a target accuracy, from the start of the program to its evaluation.

    python benchmarks/time_to_accuracy.py --config configs/cnn_small.py --target 0.67
    python benchmarks/time_to_accuracy.py --config configs/cnn_relu_48_gpu.py:72 --target 0.72 --seeds 0 1 2

Each seed trains in its own process, from random weights to the end of the recipe, and is evaluated once,
without test-time augmentation, on --config.selection.split; no earlier score influences training or
selection. The time includes the start of the interpreter and the evaluation. It is divided into the start
(imports, data, parameters), compilation, and the rest: tracing, training, evaluation, and writing the
checkpoint. Processes do not share compiled programs. If the mean accuracy over the seeds misses the target,
the exit code is 1. Flags after -- override the config, such as --config.train.epochs=1.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax import tables
from fer_jax.commands import common
from fer_jax.evaluation import run_info
from fer_jax.training import launch
from fer_jax.training.monitoring import EXIT_PREEMPTED, StopSignal

COMPILATION = "/jax/core/compile/backend_compile_duration"


def main() -> int:
    parser = common.make_training_parser(__doc__)
    add, share = parser.add_argument, common.number(float, 1e-9, 1)
    add("--target", type=share, required=True, metavar="SHARE", help="accuracy, such as 0.7 for 70 %%")
    add("--seeds", type=int, nargs="+", default=[0], metavar="N", help="seeds of the runs")
    add("--started", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    common.refuse(parser, options.arguments)
    return common.run(answer if options.started else benchmark, options)


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates in this process.

    Returns:
      "accuracy"; "total", "start", and "compilation" in seconds; and "origin", see `run_info.current`.
    """
    import jax

    from fer_jax import runtime

    compiled = [0.0]

    def listen(event, seconds, **_):
        if event == COMPILATION:
            compiled[0] += seconds

    jax.monitoring.register_event_duration_secs_listener(listen)
    runtime.tune_cpu()
    from fer_jax.training.run import Run
    from fer_jax.training.train import train as run_loop
    from fer_jax.training.validate import validate

    flags = [*common.data_flags(options), f"--config.seed={options.seeds[0]}", *options.arguments]
    config = launch.load_config(options.config, flags)
    with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
        config.train.eval_steps = sys.maxsize  # evaluates only at the end
        # Closed before the folder is removed, because checkpoints are written in the background.
        with contextlib.closing(Run(validate(config), pathlib.Path(folder), stop)) as run:
            start, compiled[0] = time.time() - options.started, 0.0
            run_loop(run)
            total = time.time() - options.started
        accuracy = run.plateau_tracker.best
    figures = {"accuracy": accuracy, "total": total, "start": start, "compilation": compiled[0]}
    return figures | {"origin": run_info.current()}


def answer(options: argparse.Namespace) -> int:
    """Prints the result of `train` as JSON; returns the exit code."""
    print(json.dumps(train(options)))
    return 0


def measure(commands: launch.Commands, options: argparse.Namespace, seed: int) -> tuple[int, dict[str, Any]]:
    """Runs `train` in a child process; returns the exit code and the result, {} if it failed."""
    line = [sys.executable, __file__, "--config", options.config, "--data", str(options.data)]
    line += ["--target", str(options.target), "--seeds", str(seed)]
    line += ["--image_size", str(options.image_size)] if options.image_size else []
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    started = ["--started", str(time.time()), "--", *options.arguments]
    code, printed = commands.run(*line, *started, env=environment, stdout=subprocess.PIPE)
    return code, {} if code else json.loads(printed.splitlines()[-1])


def table(rows: dict[int, dict[str, Any]], target: float) -> tuple[list[str], bool]:
    """Returns the lines to print, and whether the target is reached.

    Args:
      rows: results of `train` by seed.
      target: accuracy in [0, 1].
    """
    columns = [
        (100 * row["accuracy"], row["total"], row["start"], row["compilation"],
         row["total"] - row["start"] - row["compilation"])
        for row in rows.values()
    ]  # fmt: skip
    accuracies, means = [column[0] for column in columns], np.mean(columns, axis=0)
    titled = zip([*map(str, rows), "mean"], [*columns, means], strict=True)
    cells = [(title, f"{first:.2f}", *(f"{other:.1f}" for other in rest)) for title, (first, *rest) in titled]
    head = ("seed", "accuracy, %", "seconds in all", "start", "compilation", "without both")
    reached = bool(means[0] >= 100 * target)
    hits = sum(accuracy >= 100 * target for accuracy in accuracies)
    spread = f" ± {np.std(accuracies, ddof=1):.2f}" if len(columns) > 1 else ""
    verdict = (
        f"{100 * target:g} % {'reached' if reached else 'missed'}: {means[0]:.2f} %{spread} in "
        f"{means[1]:.0f} s, {means[4]:.0f} s without start and compilation; reached by {hits} of {len(rows)} "
        "seeds"
    )
    return [*tables.table(head, cells), "", verdict], reached


def check(config: ConfigDict) -> None:
    """Checks that a config trains from random weights without teachers and selects by accuracy.

    Raises:
      ValueError: a field has another value; the message names it.
    """
    from fer_jax.training import validate

    plain = {"init_from": "", "init.weights": "none", "distill.teachers": (), "selection.metric": "accuracy"}
    for name, value in plain.items():
        if (found := validate.field(config, name)) != value:
            raise ValueError(f"config.{name} is {found!r}; expected {value!r} for this benchmark")


def benchmark(options: argparse.Namespace) -> int:
    """Trains with each seed, and prints the table; returns the exit code."""
    config = launch.load_config(options.config, options.arguments)
    check(config)
    rows, commands = {}, launch.Commands()
    for seed in dict.fromkeys(options.seeds):
        print(f"seed {seed}", file=sys.stderr, flush=True)
        code, rows[seed] = measure(commands, options, seed)
        if code == EXIT_PREEMPTED:
            print("stopped without saving; run the same command to start over", file=sys.stderr)
        if code:
            return code
    lines, reached = table(rows, options.target)
    origin = run_info.describe(row["origin"] for row in rows.values())
    judged = f"Accuracy on `{config.selection.split}` by {config.data.labels} labels."
    print("\n".join([f"{launch.called()}, {origin}", "", judged, "", *lines]))
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
