"""Trains and evaluates a list of configs, one after the other, and tables what came out.

    fer-jax train-list --out runs/backbones
    fer-jax train-list --out runs/list --weights weights --configs effnet_b0:cpu effnet_b4 cnn
    fer-jax train-list --out runs/best --configs best best:deep best:plain --seeds 0 1 2
    fer-jax train-list --out runs/toy --configs mobilenet_v2 -- --config.train.batch_size=32

The default list is the ImageNet networks' own configs. A config is a name in configs/, followed by a colon
and a value if it takes one. Run the same command to resume: it skips finished runs. SIGTERM and Ctrl-C save a
checkpoint first and exit with code 75. Official ImageNet weights are downloaded, or taken from the folder
--weights if fer-jax port-weights put them there. A network that starts from a partial file (effnet_b4)
needs them there. A network whose weights no server has is trained from scratch, and the table says so; any
other error with weights or configs ends the command before the first training. A run keeps the weights that
it started with: remove its folder to start over. --scratch also trains each network from scratch, which shows
what pretraining is worth. --seeds trains each config once per seed, and the table has the mean and standard
deviation. Flags after -- go to every training. OUT/results.md is rewritten after each training;
fer-jax ensemble combines the runs, and prints the flag that teaches one network what they answer.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax import tables
from fer_jax.commands import common, trainings
from fer_jax.pretrained.key_map import ECOSYSTEMS
from fer_jax.training.monitoring import EXIT_PREEMPTED
from fer_jax.training.run_dir import CONFIG_FILE, finished_summary

CONFIGS = (
    "effnet_b0",
    "effnet_b2",
    "effnet_lite0",
    "effnet_lite2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "vgg16",
)
_COLUMNS = ("run", "weights", "split", "accuracy (95 %)", "macro F1", "best epoch", "minutes")


@dataclasses.dataclass(frozen=True)
class Training:
    """What is to be run.

    Attributes:
      config: its file, perhaps with a value.
      workdir: its folder.
      weights: the value of config.init.weights.
      words: what the table says about them.
      seed: the value of config.seed, None for the config's own.
    """

    config: str
    workdir: pathlib.Path
    weights: str
    words: str
    seed: int | None = None

    @property
    def flags(self) -> list[str]:
        """The training's flags."""
        seed = [] if self.seed is None else [f"--config.seed={self.seed}"]
        return [f"--config.init.weights={self.weights}", *seed]


def begun_with(workdir: pathlib.Path) -> str | None:
    """Returns the value of config.init.weights of the run in a folder, None where there is none."""
    path = workdir / CONFIG_FILE
    return json.loads(path.read_text())["init.weights"] if path.is_file() else None


def obtain_weights(commands: trainings.Commands, model: str, wanted: str, folder: pathlib.Path) -> str:
    """Returns the value of config.init.weights for a config that wants those: a file in the folder, or none.

    Raises:
      SystemExit: they cannot be had, and that is a fault to be mended; or the command was stopped.
    """
    if wanted not in ECOSYSTEMS:
        path = folder / pathlib.Path(wanted).name
        if not path.is_file():
            sys.exit(
                f"error: {path} is not there: it is made from a partial file of {model}, by the command in "
                "the docstring of its config; then --weights names its folder"
            )
        return str(path)
    path = folder / f"{model}_{wanted}.safetensors"
    if not path.is_file():
        port = ("-m", "fer_jax", "port-weights", "--model", model, "--from", wanted, "--out", str(folder))
        code = commands.run(sys.executable, *port)
        if code == os.EX_UNAVAILABLE:
            return "none"
        if code == EXIT_PREEMPTED:
            sys.exit(code)
        if code:
            sys.exit(
                f"error: {wanted}'s weights of {model} are at fault, see above: mend that, or leave its "
                "config out by --configs"
            )
    return str(path)


def path_of(name: str) -> str:
    """Returns the value of --config for a name in --configs."""
    file, colon, value = name.partition(":")
    return f"configs/{file}.py{colon}{value}"


def plan(
    commands: trainings.Commands,
    name: str,
    config: ConfigDict,
    out: pathlib.Path,
    folder: pathlib.Path,
    scratch: bool,
    seeds: Sequence[int | None] = (None,),
) -> Iterator[Training]:
    """Yields the trainings of a config: from its weights, and without them if `scratch`, with each seed.

    Raises:
      SystemExit: as `obtain_weights`.
    """
    model, wanted, found = config.model.name, config.init.weights, None
    whose = wanted if wanted in ECOSYSTEMS else "a partial file"
    for seed in seeds:

        def training(weights: str, words: str, suffix: str = "", seed: int | None = seed) -> Training:
            folder = name.replace(":", "_") + suffix + ("" if seed is None else f"_seed_{seed}")
            return Training(path_of(name), out / folder, weights, words, seed)

        if wanted == "none":
            yield training(wanted, f"`{config.init_from}`" if config.init_from else "from scratch")
            continue
        weights = begun_with(training("", "").workdir)
        if weights is None:
            weights = found = found or obtain_weights(commands, model, wanted, folder)
        if weights == "none":
            yield training(weights, f"from scratch ({whose}'s could not be had)")
            continue
        yield training(weights, f"ImageNet, {whose}")
        if scratch:
            yield training("none", "from scratch", "_scratch")


def row_of(training: Training, code: int) -> tuple[str, ...]:
    """Returns the table's row of a training that ended with an exit code."""
    name, workdir = training.workdir.name, training.workdir
    if code:
        return (f"`{name}`", training.words, f"failed ({code})", *[""] * (len(_COLUMNS) - 3))
    result = read_report(workdir)
    summary = json.loads((workdir / "summary.json").read_text())
    low, high = (100 * bound for bound in result["interval_95"]["accuracy"])
    return (
        f"`{name}`",
        training.words,
        summary["best"]["split"],
        f"{100 * result['accuracy']:.2f} ({low:.1f} - {high:.1f})",
        f"{result['macro_f1']:.3f}",
        f"{summary['best']['epoch']:g}",
        f"{summary['seconds'] / 60:.1f}",
    )


def read_report(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads the report of a finished run."""
    return json.loads((workdir / "report" / "report.json").read_text())


def rows_of(done: Sequence[tuple[Training, int]]) -> list[tuple[str, ...]]:
    """Returns the table's rows: one per training, and the mean and standard deviation over seeds.

    Args:
      done: the trainings and their exit codes.
    """
    rows, finished = [], {}
    for training, code in done:
        rows.append(row_of(training, code))
        if not code and training.seed is not None:
            name = training.workdir.name.removesuffix(f"_seed_{training.seed}")
            finished.setdefault((name, training.words), []).append(read_report(training.workdir))
    for (name, words), reports in finished.items():
        if len(reports) > 1:
            accuracies = [100 * report["accuracy"] for report in reports]
            spread = f"{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f}"
            f1 = f"{statistics.mean(report['macro_f1'] for report in reports):.3f}"
            rows.append((f"`{name}`, {len(reports)} seeds, mean ± std", words, "", spread, f1, "", ""))
    return rows


def main() -> int:
    """Runs the list.

    Returns:
      The exit code of the first training that failed, after all were tried; or that of a stopped one.
    """
    parser = trainings.make_parser(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs and the table")
    parser.add_argument(
        "--configs", nargs="+", default=CONFIGS, metavar="NAME", help=f"(default: {' '.join(CONFIGS)})"
    )
    parser.add_argument(
        "--weights",
        type=pathlib.Path,
        help="folder of ported weights, MODEL_ECOSYSTEM.safetensors (OUT/weights)",
    )
    parser.add_argument("--scratch", action="store_true", help="each network from scratch as well")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="each config once per seed")
    options = parser.parse_args()
    trainings.refuse(parser, options.arguments, ("config", "workdir", "config.seed", "config.init.weights"))
    return common.run(train_all, options)


def train_all(options: argparse.Namespace) -> int:
    """Trains what the options ask for; see `main`."""
    out = common.open_folder(options.out).resolve()
    configs = {name: trainings.load_config(path_of(name), options.arguments) for name in options.configs}
    seeds = list(dict.fromkeys(options.seeds)) if options.seeds else [None]
    commands, folder = trainings.Commands(), (options.weights or out / "weights").resolve()
    # All weights first: a fault in the last of them would cost hours.
    planned = [
        training
        for name, config in configs.items()
        for training in plan(commands, name, config, out, folder, options.scratch, seeds)
    ]
    runs = {
        one.workdir: trainings.load_config(one.config, [*one.flags, *options.arguments]) for one in planned
    }
    if len(runs) < len(planned):
        raise ValueError("two of --configs share a folder's name: give each once, or two --out")
    unfinished = [config for run, config in runs.items() if not finished_summary(run)]
    trainings.rehearse(unfinished)
    trainings.refuse_others(runs)
    done = []
    for training in planned:
        code = commands.train(training.config, training.workdir, *training.flags, *options.arguments)
        if code == EXIT_PREEMPTED:
            return code
        done.append((training, code))
        header = trainings.origin(one.workdir for one, _ in done)
        lines = [header, "", *tables.table(_COLUMNS, rows_of(done))]
        (out / "results.md").write_text("\n".join(lines) + "\n")
    print("\n" + (out / "results.md").read_text())
    return next((code for _, code in done if code), 0)
