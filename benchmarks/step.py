"""Measures a config's training step on this device, compared with the device's rate of matrix products.

    python benchmarks/step.py --config configs/cnn_48_gpu.py
    python benchmarks/step.py --config configs/cnn_48_gpu.py:deep --profile traces -- \\
        --config.train.batch_size=512

Times the step at the end of a run (last stage, full input size) with a batch on the device, and with the
input pipeline. Operations are those of the matrix products and convolutions as the network defines them, two
per multiply-add. The device's rate is measured with a large matrix product in the config's dtype. --profile
writes a trace for XProf or Perfetto. Requires a single device. Flags after -- override the config.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import EngFormatter

from fer_jax.commands import common
from fer_jax.training import launch

if TYPE_CHECKING:
    from fer_jax.training.run import Run

OWN = ("config", "workdir", "config.data.dir", "config.data.image_size", "config.parallel")
WARM_UP, PROFILED = 3, 5  # steps


def main(argv: list[str] | None = None) -> int:
    parser = common.make_training_parser(__doc__)
    number = {"type": common.at_least_one, "metavar": "N"}
    parser.add_argument("--steps", **number, default=50, help="timed steps per round")
    parser.add_argument("--rounds", **number, default=3, help="rounds, of which the best counts")
    parser.add_argument("--profile", type=pathlib.Path, metavar="DIR", help="folder for a trace")
    options = parser.parse_args(argv)
    common.refuse(parser, options.arguments, OWN)
    return common.run(benchmark, options)


def benchmark(options: argparse.Namespace) -> int:
    """Prints all measurements; returns the exit code.

    Raises:
      ValueError: the config is invalid, or there are several devices.
    """
    flags = [*common.data_flags(options), "--config.parallel=jit", *options.arguments]
    config = launch.load_config(options.config, flags)
    import jax

    from fer_jax import runtime

    runtime.tune_cpu()
    from fer_jax.evaluation import run_info
    from fer_jax.training.monitoring import StopSignal
    from fer_jax.training.run import Run
    from fer_jax.training.validate import validate

    if jax.device_count() > 1:
        raise ValueError(
            f"there are {jax.device_count()} devices, but the benchmark requires a single one: hide the "
            "others, for example with CUDA_VISIBLE_DEVICES=0"
        )
    print(f"{launch.called()}, {run_info.describe([run_info.current()])}", flush=True)
    if options.profile:
        common.open_folder(options.profile, "--profile")
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(Run(validate(config), pathlib.Path(folder), StopSignal())) as run:
            measure(run, options)
    return 0


def measure(run: "Run", options: argparse.Namespace) -> None:
    """Prints the throughput and the device's rate, and writes a trace if requested."""
    import ceilings

    from fer_jax.evaluation import cost
    from fer_jax.models.ops.portable import portable

    run.step = run.total_steps - 1
    run.enter_stage()
    config, size = run.config, run.input_size()
    model, batch_size = config.model, config.train.batch_size
    step, batch = run.train_step(size), run.partitioner.put_batch(next(run.stream))
    print(
        f"\n{model.name}, {size} px, {model.channels} channel{'s' if model.channels > 1 else ''}, "
        f"{model.dtype}, batch {batch_size}, on {cost.hardware()}\n"
        f"a step is: {', '.join(contents(config))}\n\n"
        "| | steps/s | images/s | waiting for input |\n|---|---|---|---|",
        flush=True,
    )
    alone, _ = timed(run, step, lambda: batch, options)
    print(f"| its batch on the device | {1 / alone:.2f} | {batch_size / alone:.0f} | |", flush=True)
    fed, waiting = timed(run, step, lambda: run.partitioner.put_batch(next(run.stream)), options)
    print(f"| as training feeds it | {1 / fed:.2f} | {batch_size / fed:.0f} | {waiting:.1%} |", flush=True)
    with portable():  # counts the convolutions independently of their implementation
        operations = ceilings.operations(
            run.compile_step(size).trace(run.state, batch, *run.constants).jaxpr.jaxpr
        )
    rate = ceilings.matrix_product_rate(model.dtype)
    amounts = ((operations, "FLOP"), (operations / alone, "FLOP/s"), (rate, "FLOP/s"))
    cells = [EngFormatter(unit, places=3)(value) for value, unit in amounts]
    cells += [f"{operations / alone / rate:.1%}", f"{rate / operations:.2f}"]
    print("\n| | a step | a second | ceiling | reached | steps/s there |\n|---|---|---|---|---|---|")
    print(f"| matrix products, {model.dtype} | {' | '.join(cells)} |", flush=True)
    if options.profile:
        print(f"\n{trace(run, step, batch, options.profile)}")
        print(f"view it: pip install xprof; xprof --logdir {options.profile}")


def contents(config: Any) -> Iterable[str]:
    """Yields the parts of a config's training step as text."""
    yield "resampling and augmentation of uint8 faces"
    if config.distill.teachers and config.distill.views != "plain":
        yield "the teachers' forward pass"
    if config.optim.sharpness_radius:
        yield "forward, loss and backward for the sharpness"
    yield from ("forward", "loss", "backward", "update")
    if config.train.ema_decay:
        yield "averaged weights"
    yield "metrics"


def timed(
    run: "Run", step: Callable, feed: Callable[[], Any], options: argparse.Namespace
) -> tuple[float, float]:
    """Trains on batches from `feed`.

    Returns:
      Seconds per step in the best round, and the share of this time spent waiting for input.
    """
    advance(run, step, feed, WARM_UP)
    rounds = []
    for _ in range(options.rounds):
        run.stream.wait_seconds, started = 0.0, time.perf_counter()
        advance(run, step, feed, options.steps)
        seconds = time.perf_counter() - started
        rounds.append((seconds / options.steps, run.stream.wait_seconds / seconds))
    return min(rounds)


def advance(run: "Run", step: Callable, feed: Callable[[], Any], count: int) -> None:
    """Runs `count` steps, dispatched asynchronously as in training, and waits for the last."""
    for _ in range(count):
        run.state, metrics = step(run.state, feed(), *run.constants)
    metrics["loss"].block_until_ready()


def trace(run: "Run", step: Callable, batch: Any, folder: pathlib.Path) -> pathlib.Path:
    """Writes a trace of PROFILED steps; returns its path."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python events would slow down the host
    before = set(folder.rglob("*.xplane.pb"))
    with jax.profiler.trace(str(folder), profiler_options=options):
        advance(run, step, lambda: batch, PROFILED)
    (path,) = set(folder.rglob("*.xplane.pb")) - before
    return path


if __name__ == "__main__":
    sys.exit(main())
