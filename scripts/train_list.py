"""Trains and evaluates a list of configs, one after the other, and tables what came out.

    python scripts/train_list.py --out runs/backbones
    python scripts/train_list.py --out runs/list --weights weights --configs effnet_b0:cpu effnet_b4 cnn
    python scripts/train_list.py --out runs/toy --configs mobilenet_v2 -- --config.train.batch_size=32

The default list is the ImageNet networks' own configs. A config is a name in configs/, followed by a colon
and a value if it takes one. Run the same command to resume: it skips finished runs. SIGTERM and Ctrl-C save a
checkpoint first and exit with code 75. Official ImageNet weights are downloaded, or taken from the folder
--weights if scripts/port_weights.py put them there. A network that starts from a partial file (effnet_b4)
needs them there. A network whose weights no server has is trained from scratch, and the table says so; any
other error with weights ends the command before the first training. A run keeps the weights that it started
with: remove its folder to start over. --scratch also trains each network from scratch, which shows what
pretraining is worth. Flags after -- go to every training. OUT/results.md is rewritten after each training.
"""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import trainings  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from fer_jax.evaluation import markdown  # noqa: E402
from fer_jax.monitor import EXIT_PREEMPTED  # noqa: E402
from fer_jax.pretrained.naming import ECOSYSTEMS  # noqa: E402
from fer_jax.workdir import CONFIG_FILE  # noqa: E402

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
    """

    config: str
    workdir: pathlib.Path
    weights: str
    words: str


def begun_with(workdir: pathlib.Path) -> str | None:
    """The value of config.init.weights of the run in a folder, None where there is none."""
    path = workdir / CONFIG_FILE
    return json.loads(path.read_text())["init.weights"] if path.is_file() else None


def obtain_weights(commands: trainings.Commands, model: str, wanted: str, folder: pathlib.Path) -> str:
    """The value of config.init.weights for a config that wants those: a file in the folder, or none.

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
        port = ("scripts/port_weights.py", "--model", model, "--from", wanted, "--out", str(folder))
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
) -> Iterator[Training]:
    """Yields the trainings of a config: from its weights, and without them if `scratch`.

    Raises:
      SystemExit: as `obtain_weights`.
    """
    path, workdir = path_of(name), out / name.replace(":", "_")
    model, wanted = config.model.name, config.init.weights
    if wanted == "none":
        yield Training(path, workdir, wanted, f"`{config.init_from}`" if config.init_from else "from scratch")
        return
    weights = begun_with(workdir) or obtain_weights(commands, model, wanted, folder)
    whose = wanted if wanted in ECOSYSTEMS else "a partial file"
    if weights == "none":
        yield Training(path, workdir, weights, f"from scratch ({whose}'s could not be had)")
        return
    yield Training(path, workdir, weights, f"ImageNet, {whose}")
    if scratch:
        yield Training(path, workdir.with_name(f"{workdir.name}_scratch"), "none", "from scratch")


def row_of(training: Training, code: int) -> tuple[str, ...]:
    """The row of the table of a training that ended with an exit code."""
    name, workdir = training.workdir.name, training.workdir
    if code:
        return (f"`{name}`", training.words, f"failed ({code})", *[""] * (len(_COLUMNS) - 3))
    result = json.loads((workdir / "report" / "report.json").read_text())
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


def main() -> int:
    """The exit code is that of the first training that failed, after all have been tried, or says stopped."""
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
    options = parser.parse_args()
    out = options.out.resolve()
    try:
        configs = {name: trainings.load_config(path_of(name)) for name in options.configs}
    except ValueError as error:
        parser.error(str(error))
    commands, folder = trainings.Commands(), (options.weights or out / "weights").resolve()
    # All weights first: a fault in the last of them would cost hours.
    planned = [
        training
        for name, config in configs.items()
        for training in plan(commands, name, config, out, folder, options.scratch)
    ]
    rows, runs, failed = [], [], 0
    for training in planned:
        flags = [f"--config.init.weights={training.weights}", *options.arguments]
        code = commands.train(training.config, training.workdir, *flags)
        if code == EXIT_PREEMPTED:
            return code
        failed = failed or code
        rows.append(row_of(training, code))
        runs.append(training.workdir)
        lines = [trainings.origin(runs), "", *markdown.table(_COLUMNS, rows)]
        (out / "results.md").write_text("\n".join(lines) + "\n")
    print("\n" + (out / "results.md").read_text())
    return failed


if __name__ == "__main__":
    sys.exit(main())
