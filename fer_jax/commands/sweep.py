"""Searches over the fields of a configuration, on a grid or at random, and ranks what came of it.

    fer-jax sweep --config configs/cnn_small.py --out runs/sweep \\
        --grid optim.learning_rate 0.005 0.01 0.02 --grid augment.mixup 0.0 0.2 --seeds 0 1
    fer-jax sweep --config configs/cnn_small.py --out runs/search --random 20 \\
        --draw optim.learning_rate log 0.001 0.05 --draw loss.label_smoothing uniform 0.0 0.2 \\
        --draw model.kwargs.widths choice "(24, 48, 64, 96)" "(16, 32, 64, 128)" -- --config.train.epochs=10

--grid tries every combination of the values given, --random N draws N trials: `uniform LOW HIGH`,
`log LOW HIGH`, `int LOW HIGH` or `choice VALUE ...` for each --draw; a grid and draws together make every
combination of both. Values that cannot be are refused before the first training. OUT/TRIAL/seed_N are the
trainings, one after the other, seed by seed; a trial that fails is named and the others go on. The same
command again goes on where it stopped, and with more values of the grid, more draws or more seeds it keeps
what is there. After each training OUT gets results.md, results.json and sweep.png anew: the finished trials,
ranked on the selection split by the seeds that all of them have, with 95 % intervals. What follows -- is for
every training.
"""

import argparse
import json
import pathlib
import sys

from fer_jax import errors
from fer_jax.commands import common, trainings
from fer_jax.data.dataset import builder
from fer_jax.evaluation.compare import ablation, sweep
from fer_jax.training import validate
from fer_jax.training.monitoring import EXIT_PREEMPTED

OWN = ("config", "workdir", "config.data.dir", "config.data.image_size", "config.seed")
# What trials are judged by has to be the same for all.
JUDGED_BY = ("data.labels", "data.num_classes", "selection.split")


def parse_args() -> argparse.Namespace:
    parser = trainings.make_parser(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the trainings and results")
    trainings.add_data(parser)
    field = {"nargs": "+", "action": "append", "default": [], "metavar": ("FIELD", "VALUE")}
    parser.add_argument("--grid", **field, help="a field of the configuration and the values to try")
    parser.add_argument("--draw", **field, help="a field, how it is drawn, and between or from what")
    parser.add_argument("--random", type=common.at_least_one, metavar="N", help="how many to draw")
    parser.add_argument("--sweep_seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="(default: 0)")
    parser.add_argument(
        "--rank_by",
        choices=ablation.FIGURES,
        default="accuracy",
        help="(default: accuracy)",
    )
    options = parser.parse_args()
    trainings.refuse(parser, options.arguments, OWN)
    if bool(options.draw) != bool(options.random):
        parser.error("--draw and --random go together: --random 20 --draw optim.learning_rate log 0.01 1")
    if not options.grid and not options.draw:
        parser.error("nothing to try: give --grid FIELD VALUE ... or --random N --draw FIELD KIND ...")
    options.seeds = list(dict.fromkeys(options.seeds))
    try:
        options.trials = make_trials(options)
    except Exception as error:
        if (reason := errors.explain(error, options.out)) is None:
            raise
        parser.error(reason)
    return options


def make_trials(options: argparse.Namespace) -> dict[str, sweep.Trial]:
    """The trials by the names of their folders.

    Raises:
      ValueError: a field is not in the config or stands twice, or it cannot be drawn so.
      As `validate.rehearse`: a trial's values cannot be.
    """
    config = trainings.load_config(options.config)
    names = [name for name, *_ in options.grid + options.draw]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is given twice: give all its values at once")
        if f"config.{name}" in OWN:
            raise ValueError(f"{name}: the command sets this for each training itself")
        if name in JUDGED_BY:
            raise ValueError(f"{name} changes what a trial is judged by: give it after -- for all of them")
        try:
            validate.field(config, name)
        except AttributeError:
            raise ValueError(f"{options.config} has no field {name}, see configs/default.py") from None
    values = {name: values for name, *values in options.grid}
    if short := [name for name, values in values.items() if not values]:
        raise ValueError(f"--grid {short[0]}: give the values to try")
    draws = {}
    for name, *how in options.draw:
        try:
            draws[name] = sweep.Draw(how[0] if how else "", tuple(how[1:]))
        except ValueError as error:
            raise ValueError(f"--draw {name}: {error}") from None
    drawn = sweep.random(draws, options.random, options.sweep_seed) if draws else [{}]
    trials = [point | chosen for chosen in drawn for point in sweep.grid(values)]
    flags = [[*options.arguments, *trial_flags(trial)] for trial in trials]
    trainings.rehearse([trainings.load_config(options.config, own) for own in flags])
    named = {sweep.trial_name(trial): trial for trial in trials}
    if len(named) < len(trials):
        print(f"{len(trials) - len(named)} of {len(trials)} draws were there already", file=sys.stderr)
    return named


def trial_flags(trial: sweep.Trial) -> list[str]:
    """The flags of a training for the fields of a trial."""
    return [f"--config.{field}={value}" for field, value in trial.items()]


def main() -> int:
    """The exit code is that of the first training that failed, 2 where the results cannot be compared."""
    return common.run(run_sweep, parse_args())


def run_sweep(options: argparse.Namespace) -> int:
    """Trains all, and goes on without a trial that fails; the exit code."""
    builder.read_manifest(options.data)
    out = common.open_folder(options.out).resolve()
    done, failed = dict.fromkeys(options.trials, 0), {}
    flags = {
        out / name / f"seed_{seed}": training_flags(options, seed, trial)
        for seed in options.seeds
        for name, trial in options.trials.items()
    }
    refuse_others(out, options, flags)
    commands = trainings.Commands()
    for seed in options.seeds:
        for number, name in enumerate(options.trials, 1):
            if name in failed:
                continue
            print(f"\ntrial {number} of {len(options.trials)}, seed {seed}: {name}")
            run = out / name / f"seed_{seed}"
            code = commands.train(options.config, run, *flags[run])
            if code == EXIT_PREEMPTED:
                return code
            if code:
                failed[name] = code
                print(f"\n{name} failed (exit code {code}); the others go on", file=sys.stderr)
            else:
                done[name] += 1
            write_results(
                out, options, {key: n for key, n in done.items() if key not in failed}, list(failed)
            )
    if all(name in failed for name in options.trials):
        print("every trial failed", file=sys.stderr)
    else:
        print("\n" + (out / "results.md").read_text())
    return next(iter(failed.values()), 0)


def refuse_others(
    out: pathlib.Path, options: argparse.Namespace, flags: dict[pathlib.Path, list[str]]
) -> None:
    """Refuses a folder with trials of another recipe, of this call's or of those that its results tell of.

    Args:
      out: the folder.
      options: of the command line.
      flags: of each training of this call.

    Raises:
      As `trainings.refuse_others`.
    """
    wanted = dict(flags)
    if (out / "results.json").is_file():
        results = json.loads((out / "results.json").read_text())
        for name, row in results["trials"].items():
            for seed in results["seeds"]:
                wanted[out / name / f"seed_{seed}"] = training_flags(options, seed, row["fields"])
    trainings.refuse_others({run: trainings.load_config(options.config, own) for run, own in wanted.items()})


def training_flags(options: argparse.Namespace, seed: int, trial: sweep.Trial) -> list[str]:
    """The flags of a training."""
    common = [*trainings.data_flags(options), f"--config.seed={seed}", *options.arguments]
    return common + trial_flags(trial)


def write_results(
    out: pathlib.Path, options: argparse.Namespace, done: dict[str, int], failed: list[str]
) -> None:
    """Ranks what this call has trained or recognised so far, and writes the table and the picture.

    Args:
      out: the folder of the trainings.
      options: of the command line.
      done: for each trial that counts, the number of seeds, in their order, that are finished.
      failed: trials that do not count.
    """
    names = [name for name, count in done.items() if count]
    if not names:
        return
    seeds = options.seeds[: min(done[name] for name in names)]
    paths = {name: [out / name / f"seed_{seed}" / "report" for seed in seeds] for name in names}
    split = json.loads((paths[names[0]][0] / "report.json").read_text())["split"]
    runs, first = ablation.read_reports(paths)
    ranking = sweep.rank(runs, first.labels, first.groups, by=options.rank_by)
    sweep.plot(ranking, options.trials, out / sweep.PICTURE, options.rank_by)
    origin = trainings.origin(path.parent for reports in paths.values() for path in reports)
    head = {"origin": origin, "split": split, "images": len(first.ids), "seeds": seeds, "failed": failed}
    trials = {name: {"fields": options.trials[name], **figures} for name, figures in ranking.items()}
    (out / "results.json").write_text(json.dumps({**head, "trials": trials}, indent=2) + "\n")
    count = f"{len(names)} of {len(options.trials)} trials, seeds {', '.join(map(str, seeds))}"
    lines = [origin, "", f"{len(first.ids):,} images of `{split}`; {count}.", ""]
    lines += [*sweep.table(ranking, options.trials), ""]
    if failed:
        lines += [f"Failed: {', '.join(failed)}.", ""]
    (out / "results.md").write_text("\n".join([*lines, f"![Trials]({sweep.PICTURE})"]) + "\n")
