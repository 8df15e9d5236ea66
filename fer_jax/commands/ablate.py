"""Trains a small network by each of several recipes under several seeds, and compares them with the baseline.

    fer-jax ablate --seeds 0 1 2 --data data/fer2013 --out runs/ablation
    fer-jax ablate --drop_ids runs/label_errors/suspects.csv --out runs/ablation

Each recipe changes one thing of --config; they are listed in RECIPES below. Each file of --drop_ids is one
more, drop_suspects for suspects.csv, that leaves these images out of the training. OUT/RECIPE/seed_N are the
trainings, one after the other, seed by seed; the same command again goes on where it stopped. After each
seed OUT gets results.md, results.json and differences.png anew: accuracy, macro F1, the recall of the worst
class and the calibration error on the selection split, and for each their difference from the baseline with
a 95 % interval over seeds and images. What follows -- is for every training.
"""

import argparse
import json
import pathlib

from fer_jax.commands import common, trainings
from fer_jax.training.monitoring import EXIT_PREEMPTED

# What each recipe changes.
RECIPES = {
    "label_smoothing": "loss.label_smoothing=0.1",
    "mixup": "augment.mixup=0.2",
    "focal": "loss.focal_gamma=2.0",
    "class_weights": "loss.class_weights=balanced",
    "logit_adjustment": "loss.logit_adjustment=1.0",
    "balanced_sampling": "data.balanced_sampling=1.0",
    "ema": "train.ema_decay=0.99",
}
OWN = ("config", "workdir", "config.data.dir", "config.data.image_size", "config.seed")


def parse_args() -> argparse.Namespace:
    parser = trainings.make_parser(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the trainings and results")
    trainings.add_data(parser)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: 0 1 2)"
    )
    parser.add_argument("--recipes", nargs="*", metavar="NAME", help="beside the baseline (default: all)")
    parser.add_argument(
        "--drop_ids",
        type=pathlib.Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="a recipe each, of fer-jax label-errors",
    )
    options = parser.parse_args()
    trainings.refuse(parser, options.arguments, OWN)
    options.recipes = list(RECIPES) if options.recipes is None else options.recipes
    if unknown := [name for name in options.recipes if name not in RECIPES]:
        parser.error(f"--recipes {unknown[0]}: there are {', '.join(RECIPES)}; files of ids go to --drop_ids")
    names = [drop_name(path) for path in options.drop_ids]
    if again := [name for name in names if names.count(name) > 1]:
        parser.error(f"--drop_ids has two files for {again[0]}: give them different names")
    options.seeds = list(dict.fromkeys(options.seeds))
    return options


def drop_name(path: pathlib.Path) -> str:
    """The recipe that a file of ids is for."""
    return f"drop_{path.stem}"


def main() -> int:
    """The exit code is that of the first training that failed, 2 where the results cannot be compared."""
    return common.run(ablate, parse_args())


def ablate(options: argparse.Namespace) -> int:
    """Trains all, and goes on without a recipe that fails unless it is the baseline; the exit code."""
    from fer_jax.evaluation.compare.ablation import BASELINE

    out = options.out.resolve()
    changes = {BASELINE: []} | {name: [f"--config.{RECIPES[name]}"] for name in options.recipes}
    for path in options.drop_ids:
        changes[drop_name(path)] = [f"--config.data.drop_ids={path.resolve()}"]
    common = [*trainings.data_flags(options), *options.arguments]
    trainings.rehearse(trainings.load_config(options.config, common + own) for own in changes.values())
    flags = {
        out / name / f"seed_{seed}": [f"--config.seed={seed}", *common, *own]
        for seed in options.seeds
        for name, own in changes.items()
    }
    trainings.refuse_others({run: trainings.load_config(options.config, own) for run, own in flags.items()})
    failed: dict[str, int] = {}
    commands = trainings.Commands()
    for number, seed in enumerate(options.seeds, 1):
        for name in [name for name in changes if name not in failed]:
            run = out / name / f"seed_{seed}"
            code = commands.train(options.config, run, *flags[run])
            if code == EXIT_PREEMPTED or (code and name == BASELINE):
                return code
            if code:
                failed[name] = code
        trained = {name: flags for name, flags in changes.items() if name not in failed}
        write_results(out, options, trained, list(failed), options.seeds[:number])
    print("\n" + (out / "results.md").read_text())
    return next(iter(failed.values()), 0)


def write_results(
    out: pathlib.Path,
    options: argparse.Namespace,
    changes: dict[str, list[str]],
    failed: list[str],
    seeds: list[int],
) -> None:
    """Compares what is trained so far, and writes the tables and the picture.

    Args:
      out: the folder of the trainings.
      options: of the command line.
      changes: each recipe's flags.
      failed: recipes that have no figures.
      seeds: those that all recipes in `changes` are trained with.
    """
    from fer_jax.evaluation.compare import ablation

    paths = {name: [out / name / f"seed_{seed}" / "report" for seed in seeds] for name in changes}
    split = json.loads((paths[ablation.BASELINE][0] / "report.json").read_text())["split"]
    runs, first = ablation.read_reports(paths)
    result = ablation.compare(runs, first.labels, first.groups)
    origin = trainings.origin(path.parent for reports in paths.values() for path in reports)
    ablation.plot_differences(result, out / ablation.PICTURE)
    head = {"origin": origin, "split": split, "images": len(first.ids), "seeds": seeds, "failed": failed}
    recipes = {name: {"flags": changes[name], **figures} for name, figures in result.items()}
    (out / "results.json").write_text(json.dumps({**head, "recipes": recipes}, indent=2) + "\n")
    lines = [
        origin,
        "",
        f"{len(first.ids):,} images of `{split}`.",
        "",
        *ablation.result_tables(result, seeds),
        "",
    ]
    if failed:
        lines += [f"Failed: {', '.join(failed)}.", ""]
    (out / "results.md").write_text("\n".join([*lines, f"![Differences]({ablation.PICTURE})"]) + "\n")
