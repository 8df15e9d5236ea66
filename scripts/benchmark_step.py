"""How fast a configuration's training step is on this device, and how near to what the device can do.

    python scripts/benchmark_step.py --config configs/best.py
    python scripts/benchmark_step.py --config configs/best.py:deep --profile traces -- \\
        --config.train.batch_size=512

The step is the one that training compiles, made by the same code from the same configuration, at the end of
the run: its last stage, its full input size. It is timed by itself, with a batch that lies on the device, and
as training feeds it, from the input pipeline. Its operations are those of the matrix products and
convolutions as the network defines them, two a multiply-add; its bytes are what the compiled kernels read and
write. Beside them stand the device's ceilings, measured here: the rate of a large matrix product in the
configuration's dtype, and of a large copy. --profile writes a trace for TensorBoard or Perfetto and ranks the
operations by the device's time. For one device. What follows -- is for the configuration.
"""

import argparse
import collections
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import trainings  # noqa: E402

from fer_jax.evaluation import command  # noqa: E402

if TYPE_CHECKING:
    import ceilings

    from fer_jax.train import Run

OWN = ("config", "workdir", "config.data.dir", "config.data.image_size", "config.parallel")
WARM_UP, PROFILED, RANKED = 3, 5, 20  # steps, steps, operations


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = trainings.make_parser(__doc__)
    trainings.add_data(parser)
    number = {"type": command.at_least_one, "metavar": "N"}
    parser.add_argument("--steps", **number, default=50, help="timed in a round (default: 50)")
    parser.add_argument("--rounds", **number, default=3, help="of which the best counts (default: 3)")
    parser.add_argument("--profile", type=pathlib.Path, metavar="DIR", help="folder for a trace")
    options = parser.parse_args(argv)
    trainings.refuse(parser, options.arguments, OWN)
    return options


def benchmark(options: argparse.Namespace) -> int:
    """Prints everything; the exit code.

    Raises:
      ValueError: the configuration cannot work, or there are several devices.
    """
    flags = [*trainings.data_flags(options), "--config.parallel=jit", *options.arguments]
    config = trainings.load_config(options.config, flags)
    import jax

    from fer_jax import platform

    platform.tune_cpu()
    from fer_jax import configure, provenance
    from fer_jax.data import builder
    from fer_jax.train import Run

    if jax.device_count() > 1:
        raise ValueError(
            f"there are {jax.device_count()} devices, and the ceilings are those of one: show one, as with "
            "CUDA_VISIBLE_DEVICES=0"
        )
    print(f"{trainings.called()}, {provenance.describe([provenance.here()])}", flush=True)
    if options.profile:
        command.open_folder(options.profile, "--profile")
    manifest, teachers = builder.read_manifest(config.data.dir), configure.teachers(config)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, pathlib.Path(folder), manifest, teachers)
        try:
            measure(run, options)
        finally:
            run.close()
    return 0


def measure(run: "Run", options: argparse.Namespace) -> None:
    """Prints the speeds, what they are of the device's ceilings and, if asked for, the profile."""
    import ceilings
    import jax

    from fer_jax.evaluation import cost
    from fer_jax.models.portable import portable

    run.step = run.total_steps - 1
    run.enter_phase()
    config, size = run.config, run.input_size()
    model, batch_size = config.model, config.train.batch_size
    step, batch = run.train_step(size), run.placement.put_batch(next(run.stream))
    print(
        f"\n{model.name}, {size} px, {model.channels} channel{'s' if model.channels > 1 else ''}, "
        f"{model.dtype}, batch {batch_size}, on {cost.hardware()}\n"
        f"a step is: {', '.join(contents(config))}\n\n"
        "| | steps/s | images/s | waiting for input |\n|---|---|---|---|",
        flush=True,
    )
    program = ceilings.Program(step.trace(run.state, batch).lower().compile().as_text())
    alone, _ = timed(run, step, lambda: batch, options)
    print(f"| its batch on the device | {1 / alone:.2f} | {batch_size / alone:.0f} | |", flush=True)
    fed, waiting = timed(run, step, lambda: run.placement.put_batch(next(run.stream)), options)
    print(f"| as training feeds it | {1 / fed:.2f} | {batch_size / fed:.0f} | {waiting:.1%} |", flush=True)
    with portable():  # whatever a device makes of the convolutions
        operations = ceilings.operations(run.compile_step(size).trace(run.state, batch).jaxpr.jaxpr)
    rate, bandwidth = ceilings.limits(model.dtype)
    print("\n| | a step | a second | ceiling | reached | steps/s there |\n|---|---|---|---|---|---|")
    print(row(f"matrix products, {model.dtype}", "FLOP", operations, alone, rate))
    print(row("memory", "B", program.traffic(), alone, bandwidth), flush=True)
    if options.profile:
        path = trace(run, step, batch, options.profile)
        print(f"\n{path}\n")
        data, on_gpu = jax.profiler.ProfileData.from_file(str(path)), jax.default_backend() == "gpu"
        print("\n".join(ranking(operations_of(data, program, on_gpu), program)))


def contents(config: Any) -> Iterable[str]:
    """What a training step of a configuration consists of."""
    yield "resampling and augmentation of uint8 faces"
    if config.distill.teachers:
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
    """Trains on what `feed` gives.

    Returns:
      The seconds of a step in the best round, for whatever disturbs a round only adds to it, and the share
      of them spent waiting for input.
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
    """Trains `count` steps, queued as training queues them, and waits for the last."""
    for _ in range(count):
        run.state, metrics = step(run.state, feed())
    metrics["loss"].block_until_ready()


def row(what: str, unit: str, amount: float, seconds: float, ceiling: float) -> str:
    """A line of the table: what a step takes `seconds` for, beside what the device can do in one."""
    cells = [
        amount_of(amount, unit),
        amount_of(amount / seconds, f"{unit}/s"),
        amount_of(ceiling, f"{unit}/s"),
    ]
    cells += [f"{amount / seconds / ceiling:.1%}", f"{ceiling / amount:.2f}"]
    return f"| {what} | {' | '.join(cells)} |"


def amount_of(value: float, unit: str) -> str:
    """Four digits with the prefix of the unit."""
    power = min(4, max(0, math.floor(math.log10(value) / 3))) if value > 0 else 0
    return f"{value / 1000**power:.4g} {' kMGT'[power].strip()}{unit}"


def trace(run: "Run", step: Callable, batch: Any, folder: pathlib.Path) -> pathlib.Path:
    """Writes a trace of a few steps; returns its file."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # its events would slow the host down
    before = set(folder.rglob("*.xplane.pb"))
    with jax.profiler.trace(str(folder), profiler_options=options):
        advance(run, step, lambda: batch, PROFILED)
    (path,) = set(folder.rglob("*.xplane.pb")) - before
    return path


def ranking(operations: Iterable[tuple[str, float, float]], program: "ceilings.Program") -> list[str]:
    """Operations by the time that they take, as the lines of a table.

    Args:
      operations: of `PROFILED` steps, as `operations_of` gives them.
      program: that ran; it knows where in the network an operation is from.
    """
    spent, calls, spans = collections.Counter(), collections.Counter(), []
    for name, start, nanoseconds in operations:
        spent[name] += nanoseconds
        calls[name] += 1
        spans.append((start, start + nanoseconds))
    if not spans:
        return ["the trace tells of no operation of the device"]
    busy, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    whole, total = reached - min(spans)[0], sum(spent.values())
    lines = [
        f"busy {busy / whole:.1%} of the time from the first operation to the last; {len(spent)} operations",
        "",
        "| ms a step | share | calls a step | operation | where |",
        "|---|---|---|---|---|",
    ]
    for name, nanoseconds in spent.most_common(RANKED):
        lines.append(
            f"| {nanoseconds / 1e6 / PROFILED:.3f} | {nanoseconds / total:.1%} | {calls[name] / PROFILED:g} "
            f"| {name} | {program.scope(name)} |"
        )
    return lines


def operations_of(data: Any, program: "ceilings.Program", on_gpu: bool) -> Iterable[tuple[str, float, float]]:
    """Name, start and duration in nanoseconds of what ran on the device, or on a CPU's threads.

    A kernel goes by the operation of the compiled program that it belongs to, and where the trace does not
    tell that, as it may not of a CUDA graph, by its own name.

    Args:
      data: `jax.profiler.ProfileData`.
      program: that ran.
      on_gpu: or on a CPU.
    """
    for plane in data.planes:
        for line in plane.lines:
            # The lines besides the streams are derived from them; the host's events are launches.
            if on_gpu and not (plane.name.startswith("/device:GPU") and line.name.startswith("Stream")):
                continue
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                found = program.find(operation) if operation else None
                if on_gpu:
                    name = operation if found and not found.is_caller else event.name
                elif operation and not (found and found.is_caller):  # what that runs has events of its own
                    name = operation
                else:
                    continue
                yield name, event.start_ns, event.duration_ns


def main(argv: list[str] | None = None) -> int:
    return command.run(benchmark, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
