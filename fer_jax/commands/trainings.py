"""What the commands that train several times share: the training's command and the figures' origin."""

import argparse
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from fer_jax.evaluation import run_info
from fer_jax.training.monitoring import EXIT_PREEMPTED


def make_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser that shows `description` as it is written, and takes what follows -- for trainings."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("arguments", nargs="*", help="after --: for fer_jax.main")
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds --config, --data and --image_size: what is trained on, and how."""
    parser.add_argument(
        "--config", default="configs/ablation.py", metavar="FILE", help="(default: configs/ablation.py)"
    )
    parser.add_argument(
        "--data", type=pathlib.Path, default=pathlib.Path("data/fer2013"), help="(default: data/fer2013)"
    )
    parser.add_argument("--image_size", type=int, metavar="N", help="common side for images of mixed sizes")


def data_flags(options: argparse.Namespace) -> list[str]:
    """The training's flags for what `add_data` adds."""
    size = [f"--config.data.image_size={options.image_size}"] if options.image_size else []
    return [f"--config.data.dir={options.data.resolve()}", *size]


def refuse(parser: argparse.ArgumentParser, arguments: Iterable[str], own: Sequence[str]) -> None:
    """Ends with a line about the first of `arguments` that sets one of the flags `own` to the command."""
    for argument in arguments:
        if argument.split("=")[0].lstrip("-") in own:
            parser.error(f"{argument} after --: the command sets this for each training itself")


def load_config(path: str, arguments: Sequence[str] = ()) -> ConfigDict:
    """The configuration that a training with `--config path` and these flags gets.

    Raises:
      ValueError: there is no such file, or a flag is not one of its fields.
    """
    own = flags.FlagValues()
    command = ["", f"--config={path}", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=own, sys_argv=command)
    file = pathlib.Path(path.partition(":")[0])
    if not file.is_file():
        raise ValueError(f"--config {path}: there is no {file.resolve()}")
    try:
        own(command)
        return own.config
    except (AttributeError, KeyError, TypeError, flags.Error) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, KeyError):  # whose text would be its quoted message
            reason = reason.args[0]
        raise ValueError(f"--config {path} {shlex.join(arguments)}: {reason}") from error


def rehearse(configs: Iterable[ConfigDict]) -> None:
    """Refuses what a training with one of these configurations would refuse, see `validate.rehearse`."""
    import jax

    from fer_jax.training import validate

    jax.config.update("jax_platforms", "cpu")  # the accelerator's memory is for the trainings
    validate.rehearse(configs)


def refuse_others(runs: Mapping[pathlib.Path, ConfigDict]) -> None:
    """Refuses directories that hold trainings with another configuration, or of other data or teachers.

    Args:
      runs: the configurations to be trained, each rehearsed, by their work directories.

    Raises:
      ValueError: one does; the message names the fields that differ.
      As `build.teachers` and `train.identity`.
    """
    from fer_jax.data.dataset import builder
    from fer_jax.training import build, run_dir
    from fer_jax.training.train import identity

    known: dict[Any, Any] = {}
    for path, config in runs.items():
        if not (path / run_dir.CONFIG_FILE).is_file():
            continue
        key = (config.data.dir, tuple(config.distill.teachers), config.data.num_classes)
        if key not in known:  # most runs have them in common
            known[key] = builder.read_manifest(config.data.dir), build.teachers(config)
        wanted = identity(config, *known[key])
        if other := run_dir.another(path, wanted):
            raise ValueError(f"{other}\nNothing was trained or changed: give another --out")


class Commands:
    """Runs commands one after the other; SIGTERM and Ctrl-C reach the one that runs as SIGTERM.

    It ends by itself, having saved: a training takes a Ctrl-C at the terminal, which it gets as well, and
    this SIGTERM for one wish to stop. What this process was started to ignore (nohup) stays ignored.

    Attributes:
      stopped: whether such a signal came.
    """

    def __init__(self):
        self.stopped = False
        self._child: subprocess.Popen | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._child:
            self._child.terminate()

    def run(self, *command: str) -> int:
        """The exit code; EXIT_PREEMPTED where the command was stopped, whatever it made of that."""
        return self.ask(*command, stdout=None)[0]

    def ask(self, *command: str, **how: Any) -> tuple[int, str | None]:
        """The exit code as of `run`, and what the command printed; `how` as `subprocess.Popen` takes it."""
        if self.stopped:
            return EXIT_PREEMPTED, ""
        self._child = subprocess.Popen(command, **{"text": True, "stdout": subprocess.PIPE} | how)
        if self.stopped:  # between the lines above
            self._child.terminate()
        printed, _ = self._child.communicate()
        code = self._child.returncode
        return (EXIT_PREEMPTED if code and self.stopped else code), printed

    def train(self, config: str, workdir: pathlib.Path, *arguments: str) -> int:
        """Trains, goes on, or recognises a finished run, in a process of its own; its exit code."""
        flags = ["--config", config, "--workdir", str(workdir), *arguments]
        print("\n$ python -m fer_jax.main " + shlex.join(flags), flush=True)
        code = self.run(sys.executable, "-m", "fer_jax.main", *flags)
        if code == EXIT_PREEMPTED:
            print(f"\n{workdir} is stopped; the same command goes on", file=sys.stderr)
        return code


def origin(runs: Iterable[pathlib.Path]) -> str:
    """How the command was called, and at which commits and on what these work directories were trained."""
    found = [start for run in runs for start in run_info.read_starts(run)]
    return f"{called()}, {run_info.describe(found)}"


def called() -> str:
    """How the command was called, as code."""
    program = f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else sys.argv[0]
    return f"`{program} {shlex.join(sys.argv[1:])}".rstrip() + "`"
