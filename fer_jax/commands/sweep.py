"""Trains variants of a config, and ranks them or compares them with a baseline.

    fer-jax sweep --config cnn_small --out runs/sweep --seeds 0 1 \\
        --grid optim.learning_rate 0.005 0.01 0.02 --grid augment.mixup 0.0 0.2
    fer-jax sweep --config cnn_small --out runs/search --random 20 \\
        --draw optim.learning_rate log 0.001 0.05 --draw loss.label_smoothing uniform 0.0 0.2 \\
        --draw model.kwargs.widths choice "(24, 48, 64, 96)" "(16, 32, 64, 128)" -- --config.train.epochs=10
    fer-jax sweep --baseline --out runs/ablation --seeds 0 1 2 \\
        --change loss.label_smoothing 0.1 --change augment.mixup 0.2 --change data.drop_ids suspects.csv

--grid tries all combinations of its values. --random N draws N trials (Bergstra & Bengio 2012), each field
from a --draw: `uniform LOW HIGH`, `log LOW HIGH`, `int LOW HIGH`, or `choice VALUE ...`; with --grid, all
combinations of both. --change tries its values one at a time, with all other fields as in the config. All
values are checked before the first run. Runs are in OUT/TRIAL/seed_N; if a trial fails, the others continue.
Run the same command to resume, or add values, draws, or seeds.

After each run, results.md, results.json, and a figure in OUT are rewritten. They rank the finished trials on
the selection split, with 95 % intervals over seeds and images, using the seeds that all trials have. With
--baseline the first trial is the unchanged config, and the results are the differences from it in accuracy,
macro F1, worst-class recall, and calibration error.
"""

import argparse
import hashlib
import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fer_jax.commands import common
from fer_jax.data.dataset import read
from fer_jax.evaluation.compare import sweep
from fer_jax.io_utils import read_json, write_json
from fer_jax.training import launch, validate
from fer_jax.training.monitoring import EXIT_PREEMPTED

DRAWS = ("uniform", "log", "int", "choice")
# Must be the same for all trials, which are compared on it.
JUDGED_BY = ("data.labels", "data.num_classes", "selection.split")
_LONGEST_NAME = 100

Trial = dict[str, str]  # {field: its value as on the command line}; empty for the baseline
Draw = Callable[[np.random.Generator], str]


def make_draw(kind: str = "", *values: str) -> Draw:
    """Returns a function that draws a field's value.

    Args:
      kind: 'uniform' between two numbers, 'log' (the logarithm is uniform), 'int' (both ends included) or
        'choice' from the values. Numbers are rounded to four digits.
      *values: as on the command line.

    Raises:
      ValueError: the kind is unknown or the values do not fit it.
    """
    if kind not in DRAWS:
        raise ValueError(f"unknown distribution {kind!r}; there are: {', '.join(DRAWS)}")
    if kind == "choice":
        if not values:
            raise ValueError("choice needs at least one value")
        return lambda rng: values[rng.integers(len(values))]
    try:
        low, high = map(float, values)
    except ValueError:
        raise ValueError(f"{kind} needs two numbers, got {' '.join(values)!r}") from None
    least = " above 0" if kind == "log" else ""
    if not (np.isfinite([low, high]).all() and low < high and (low > 0 or not least)):
        raise ValueError(f"{kind} {low:g} {high:g}: expected a lower bound{least} and a higher upper bound")
    if kind == "int":
        if math.ceil(low) > math.floor(high):
            raise ValueError(f"int {low:g} {high:g}: there is no integer between them")
        return lambda rng: str(rng.integers(math.ceil(low), math.floor(high), endpoint=True))

    def draw(rng: np.random.Generator) -> str:
        value = np.exp(rng.uniform(*np.log([low, high]))) if kind == "log" else rng.uniform(low, high)
        return f"{min(max(float(f'{value:.4g}'), low), high):g}"

    return draw


def trial_name(trial: Trial) -> str:
    """Returns the name of a trial's folder, independent of the order of the fields."""
    short = [name.rsplit(".", 1)[-1] for name in sorted(trial)]
    text = ",".join(f"{name}={trial[field]}" for name, field in zip(short, sorted(trial), strict=True))
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if name == text and len(name) <= _LONGEST_NAME and len(set(short)) == len(short):
        return name or sweep.BASELINE
    digest = hashlib.sha256(repr(sorted(trial.items())).encode()).hexdigest()[:8]
    return f"{name[:_LONGEST_NAME]}~{digest}"


def parse_args() -> argparse.Namespace:
    parser = common.make_training_parser(__doc__, runs=True)
    add = parser.add_argument
    field = {"nargs": "+", "action": "append", "default": [], "metavar": ("FIELD", "VALUE")}
    add("--grid", **field, help="config field and values; all combinations are tried; repeatable")
    add("--change", **field, help="config field and values to try one at a time; repeatable")
    text = "config field, distribution (uniform, log, int, choice), and its bounds or values; "
    add("--draw", **field, help=text + "requires --random")
    add("--random", type=common.at_least_one, metavar="N", help="number of random trials")
    seed = common.number(int, 0, 2**32 - 1)
    add("--sweep_seed", type=seed, default=0, metavar="N", help="seed of the random trials")
    add("--seeds", type=int, nargs="+", default=[0], metavar="N", help="training seeds")
    add("--baseline", action="store_true", help="report differences from the unchanged config")
    text = "metric to rank trials by, without --baseline"
    add("--rank_by", choices=sweep.FIGURES, default="accuracy", help=text)
    options = parser.parse_args()
    common.refuse(parser, options.arguments)
    if bool(options.draw) != bool(options.random):
        parser.error("--draw and --random go together: --random 20 --draw optim.learning_rate log 0.01 1")
    if not options.grid and not options.change and not options.draw:
        parser.error(
            "nothing to try: give --grid or --change FIELD VALUE ... or --random N --draw FIELD KIND ..."
        )
    options.seeds = list(dict.fromkeys(options.seeds))
    return options


def make_trials(options: argparse.Namespace) -> dict[str, Trial]:
    """Returns the trials by folder name, the baseline first if there is one.

    Raises:
      ValueError: a field is not in the config, is given twice, or its distribution is invalid.
    """
    config = launch.load_config(options.config, options.arguments)
    given = [words for flag in (options.grid, options.change, options.draw) for words in flag]
    for number, (name, *values) in enumerate(given):
        if name in [other for other, *_ in given[:number]]:
            raise ValueError(f"{name} is given twice: give all its values at once")
        if f"config.{name}" in common.OWN:
            raise ValueError(f"{name}: the command sets this field for each run")
        if name in JUDGED_BY:
            raise ValueError(f"{name} changes how trials are evaluated: give it after --, for all trials")
        if not values:
            raise ValueError(f"{name}: give the values to try")
        try:
            validate.field(config, name)
        except AttributeError:
            raise ValueError(f"{options.config} has no field {name}, see configs/default.py") from None
    draws = {}
    for name, *how in options.draw:
        try:
            draws[name] = make_draw(*how)
        except ValueError as error:
            raise ValueError(f"--draw {name}: {error}") from None
    rng, values = np.random.default_rng(options.sweep_seed), {field: of for field, *of in options.grid}
    drawn = [{field: draw(rng) for field, draw in draws.items()} for _ in range(options.random or 1)]
    points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    trials = [{}] * options.baseline + [{field: value} for field, *of in options.change for value in of]
    trials += [point | fields for fields in drawn for point in points if point or fields]
    named: dict[str, Trial] = {}
    for trial in trials:
        if named.setdefault(name := trial_name(trial), trial) != trial:
            raise ValueError(
                f"two trials would share the folder {name}: give one of them in a sweep with another --out"
            )
    if len(named) < len(trials):
        print(f"{len(trials) - len(named)} of {len(trials)} trials are duplicates", file=sys.stderr)
    return named


def main() -> int:
    """Returns the exit code of the first run that failed, or 2 if the results cannot be compared."""
    return common.run(run_sweep, parse_args())


def run_sweep(options: argparse.Namespace) -> int:
    """Runs all trials, skipping those that fail; returns the exit code."""
    trials, out = make_trials(options), options.out.resolve()
    planned = plan(options, trials, options.seeds)
    earlier = []
    if (path := out / "results.json").is_file():
        try:
            results = read_json(path)
            fields = {name: row["fields"] for name, row in results["trials"].items()}
            earlier = [one for one in plan(options, fields, results["seeds"]) if one.workdir.exists()]
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not the results of a sweep: give another --out") from error
    launch.dry_run(planned + earlier)
    read.read_manifest(options.data)
    if options.dry_run:
        print(*planned, sep="\n")
        return 0
    common.open_folder(out)
    commands, failed, done = launch.Commands(), {}, dict.fromkeys(trials, 0)
    for number, training in enumerate(planned, 1):
        name = training.workdir.parent.name
        if name in failed:
            continue
        print(f"\nrun {number} of {len(planned)}: {name}, {training.workdir.name}")
        code = commands.train(training)
        if code == EXIT_PREEMPTED or (code and options.baseline and not trials[name]):
            return code
        if code:
            failed[name] = code
            print(f"\n{name} failed (exit code {code}); the others continue", file=sys.stderr)
        else:
            done[name] += 1
        finished = {key: trials[key] for key, count in done.items() if count and key not in failed}
        if finished:
            seeds = options.seeds[: min(done[key] for key in finished)]
            write_results(options, finished, seeds, list(failed))
    if len(failed) == len(trials):
        print("every trial failed", file=sys.stderr)
    else:
        print("\n" + (out / "results.md").read_text())
    return next(iter(failed.values()), 0)


def plan(
    options: argparse.Namespace, trials: Mapping[str, Trial], seeds: Sequence[int]
) -> list[launch.Training]:
    """Returns the runs of all trials, seed by seed."""
    planned = []
    for seed, (name, trial) in itertools.product(seeds, trials.items()):
        own = [f"--config.{field}={value}" for field, value in trial.items()]
        flags = (*common.data_flags(options), f"--config.seed={seed}", *options.arguments, *own)
        workdir = options.out.resolve() / name / f"seed_{seed}"
        planned.append(launch.Training(options.config, workdir, flags))
    return planned


def write_results(
    options: argparse.Namespace, trials: Mapping[str, Trial], seeds: list[int], failed: list[str]
) -> None:
    """Compares finished trials on their common seeds; writes results.md, results.json, and the figure."""
    out = options.out.resolve()
    reports = {name: [out / name / f"seed_{seed}" / "report" for seed in seeds] for name in trials}
    files = {name: [folder / "predictions.csv" for folder in of] for name, of in reports.items()}
    runs, first = sweep.read_predictions(files)
    baseline = sweep.BASELINE if options.baseline else None
    result = sweep.compare(runs, first.labels, first.groups, baseline=baseline, rank_by=options.rank_by)
    if options.baseline:
        sweep.plot_differences(result, out / (picture := sweep.DIFFERENCES))
    else:
        sweep.plot_ranking(result, trials, out / (picture := sweep.RANKING), options.rank_by)
    paths = list(itertools.chain.from_iterable(reports.values()))
    head = {
        "origin": launch.origin(path.parent for path in paths),
        "split": read_json(paths[0] / "report.json")["split"],
        "images": len(first.ids),
        "seeds": seeds,
        "failed": failed,
        "baseline": baseline,
        "trials": {name: {"fields": trials[name], **figures} for name, figures in result.items()},
    }
    write_json(out / "results.json", head, sort_keys=False)
    page = [head["origin"], "", f"{len(first.ids):,} images of `{head['split']}`, {len(trials)} trials.", ""]
    page += [*sweep.result_tables(result, seeds, baseline or next(iter(result))), ""]
    page += [f"Failed: {', '.join(failed)}.", ""] if failed else []
    (out / "results.md").write_text("\n".join([*page, f"![Trials]({picture})"]) + "\n")
