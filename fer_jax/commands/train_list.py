"""Trains and evaluates several configs in turn, and writes a table of results.

    fer-jax train-list --out runs/backbones
    fer-jax train-list --out runs/list --weights weights --configs effnet_b0:cpu effnet_b4 cnn
    fer-jax train-list --out runs/gpu --configs cnn_48_gpu cnn_48_gpu:deep cnn_48_gpu:plain --seeds 0 1 2
    fer-jax train-list --out runs/toy --configs mobilenet_v2 --dry-run -- --config.train.batch_size=32

A config is an experiment or a file, followed by a colon and a value if it takes one. Run the same command to
resume: it skips finished runs. SIGTERM and Ctrl-C save a checkpoint and exit with code 75.

Official ImageNet weights are downloaded, or read from the folder --weights, where fer-jax port-weights may
have put them; effnet_b4 needs them there. If a download is unavailable, the network is trained from scratch,
and the table says so; any other error with weights or configs ends the command before the first run. A run
keeps the weights that it started from: remove its folder to start over.

--scratch also trains each network from scratch, to measure the effect of pretraining. --seeds trains each
config once per seed, and the table has the mean and standard deviation. Flags after -- are passed to every
run. OUT/results.md is rewritten after each run; fer-jax ensemble combines the runs.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import statistics
import sys
from collections.abc import Iterator, Sequence

from fer_jax import tables
from fer_jax.commands import common
from fer_jax.io_utils import read_json
from fer_jax.pretrained.key_map import ECOSYSTEMS
from fer_jax.training import launch
from fer_jax.training.monitoring import EXIT_PREEMPTED
from fer_jax.training.run_dir import CONFIG_FILE, SUMMARY_FILE

CONFIGS = (
    "effnet_b0 effnet_b2 effnet_lite0 effnet_lite2 mobilenet_v2 mobilenet_v3_small resnet18 vgg16"
).split()
_COLUMNS = ("run", "weights", "split", "accuracy (95 %)", "macro F1", "best epoch", "minutes")


@dataclasses.dataclass(frozen=True)
class Planned(launch.Training):
    """A run in the list, with the origin of its weights for the table, and its seed, if given."""

    start: str
    seed: int | None


def obtain_weights(
    commands: launch.Commands, model: str, wanted: str, folder: pathlib.Path, dry_run: bool = False
) -> str:
    """Returns the value of config.init.weights to use for a config that sets `wanted`.

    A file in the folder, which is created if missing, or "none". A dry run creates no file.

    Raises:
      SystemExit: the weights are unusable or missing, or the command was stopped.
    """
    if wanted not in ECOSYSTEMS:
        path = folder / pathlib.Path(wanted).name
        if not path.is_file():
            sys.exit(
                f"error: {path} does not exist: create it from a partial file of {model}, by the command in "
                "the docstring of its config, and give its folder as --weights"
            )
        return str(path)
    path = folder / f"{model}_{wanted}.safetensors"
    if path.is_file():
        return str(path)
    if dry_run:
        return wanted
    port = ("-m", "fer_jax", "port-weights", "--model", model, "--from", wanted, "--out", str(folder))
    code, _ = commands.run(sys.executable, *port)
    if code == EXIT_PREEMPTED:
        sys.exit(code)
    if code not in (0, os.EX_UNAVAILABLE):
        sys.exit(
            f"error: the {wanted} weights of {model} cannot be used (see above): fix that, or drop the config"
        )
    return "none" if code else str(path)


def plan(commands: launch.Commands, name: str, options: argparse.Namespace) -> Iterator[Planned]:
    """Yields the runs of a config for each seed: from its weights and, for --scratch, without them.

    Raises:
      As `launch.load_config` and `obtain_weights`.
    """
    config, out, obtained = launch.load_config(name, options.arguments), options.out.resolve(), None
    file, colon, value = name.partition(":")
    folder = pathlib.Path(file).stem + colon.replace(":", "_") + value
    wanted = config.init.weights
    whose = wanted if wanted in ECOSYSTEMS else "a partial file"

    def planned(seed: int | None, weights: str, start: str, suffix: str = "") -> Planned:
        own, ending = ([], "") if seed is None else ([f"--config.seed={seed}"], f"_seed_{seed}")
        flags = (f"--config.init.weights={weights}", *own, *options.arguments)
        return Planned(name, out / f"{folder}{suffix}{ending}", flags, start, seed)

    for seed in dict.fromkeys(options.seeds or [None]):
        if wanted == "none":
            yield planned(seed, wanted, f"`{config.init_from}`" if config.init_from else "from scratch")
            continue
        begun = planned(seed, wanted, "").workdir / CONFIG_FILE
        if begun.is_file():
            weights = read_json(begun)["init.weights"]
        else:
            ported = (options.weights or out / "weights").resolve()
            weights = obtained = obtained or obtain_weights(
                commands, config.model.name, wanted, ported, options.dry_run
            )
        if weights == "none":
            yield planned(seed, weights, f"from scratch ({whose} weights unavailable)")
            continue
        yield planned(seed, weights, f"ImageNet, {whose}")
        if options.scratch:
            yield planned(seed, "none", "from scratch", "_scratch")


def rows_of(done: Sequence[tuple[Planned, int]]) -> list[tuple[str, ...]]:
    """Returns the rows of runs and their exit codes, and the mean and standard deviation over seeds."""
    rows, over_seeds = [], collections.defaultdict(list)
    for training, code in done:
        name = training.workdir.name
        if code:
            rows.append((f"`{name}`", training.start, f"failed ({code})", "", "", "", ""))
            continue
        report = read_json(training.workdir / "report" / "report.json")
        summary = read_json(training.workdir / SUMMARY_FILE)
        cells = (
            summary["best"]["split"],
            tables.percent(report),
            f"{report['macro_f1']:.3f}",
            f"{summary['best']['epoch']:g}",
            f"{summary['seconds'] / 60:.1f}",
        )
        rows.append((f"`{name}`", training.start, *cells))
        group = (name.removesuffix(f"_seed_{training.seed}"), training.start)
        over_seeds[group].append((100 * report["accuracy"], report["macro_f1"]))
    for (name, start), scores in over_seeds.items():
        if len(scores) > 1:
            accuracies, f1s = zip(*scores, strict=True)
            spread = f"{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f}"
            title = f"`{name}`, {len(scores)} seeds, mean ± std"
            rows.append((title, start, "", spread, f"{statistics.mean(f1s):.3f}", "", ""))
    return rows


def main() -> int:
    """Runs the list.

    Returns:
      The exit code of the first run that failed, after all were tried, or of the run that was stopped.
    """
    parser = common.make_training_parser(__doc__, runs=True, data=False)
    add = parser.add_argument
    add("--configs", nargs="+", default=CONFIGS, metavar="NAME", help="configs to train")
    text = "folder with weights from fer-jax port-weights (default: OUT/weights)"
    add("--weights", type=pathlib.Path, metavar="DIR", help=text)
    add("--scratch", action="store_true", help="also train each network from scratch")
    text = "train each config once per seed (default: the config's own seed)"
    add("--seeds", type=int, nargs="+", metavar="N", help=text)
    options = parser.parse_args()
    common.refuse(parser, options.arguments, ("config", "workdir", "config.seed", "config.init.weights"))
    return common.run(train_all, options)


def train_all(options: argparse.Namespace) -> int:
    """Runs the list as the options say; see `main`."""
    if not options.dry_run:
        common.open_folder(options.out)
    commands = launch.Commands()
    # All weights first: an error in the last of them would cost hours.
    planned = [training for name in options.configs for training in plan(commands, name, options)]
    if len({training.workdir for training in planned}) < len(planned):
        raise ValueError(
            "two of --configs would share a folder: give each once, or use separate --out folders"
        )
    launch.dry_run(planned)
    if options.dry_run:
        print(*planned, sep="\n")
        return 0
    done: list[tuple[Planned, int]] = []
    for training in planned:
        done.append((training, commands.train(training)))
        if done[-1][1] == EXIT_PREEMPTED:
            return EXIT_PREEMPTED
        header = launch.origin(one.workdir for one, _ in done)
        lines = [header, "", *tables.table(_COLUMNS, rows_of(done))]
        (options.out / "results.md").write_text("\n".join(lines) + "\n")
    print("\n" + (options.out / "results.md").read_text())
    return next((code for _, code in done if code), 0)
