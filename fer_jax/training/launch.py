"""Launches runs in child processes: their configs, a dry run, and the processes."""

import dataclasses
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

import configs
from fer_jax.evaluation import run_info
from fer_jax.training.monitoring import EXIT_PREEMPTED


def load_config(name: str, arguments: Sequence[str] = ()) -> ConfigDict:
    """Returns the config of a run with `--config name` and these flags.

    Raises:
      ValueError: the experiment is unknown, or a flag does not fit the config.
    """
    own = flags.FlagValues()
    command = ["", f"--config={configs.find(name)}", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=own, sys_argv=command)
    try:
        own(command)
        return own.config
    except (AttributeError, KeyError, TypeError, flags.Error) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, KeyError):  # whose text would be its quoted message
            reason = reason.args[0]
        raise ValueError(f"--config {name} {shlex.join(arguments)}: {reason}") from error


@dataclasses.dataclass(frozen=True)
class Training:
    """A run to launch: an experiment or config file, the run directory, and flags."""

    config: str
    workdir: pathlib.Path
    flags: tuple[str, ...]

    def words(self) -> list[str]:
        """Returns the arguments of fer-jax train."""
        return ["--config", configs.find(self.config), "--workdir", str(self.workdir), *self.flags]

    def __str__(self) -> str:
        return f"$ fer-jax train {shlex.join(self.words())}"


def dry_run(trainings: Iterable[Training]) -> None:
    """Validates all runs before the first one starts.

    Raises:
      ValueError: a directory has a run with another config, other data, or other teachers.
      As `load_config`, `validate.dry_run` and `validate.validate`.
    """
    import jax

    from fer_jax.training import run_dir, validate

    jax.config.update("jax_platforms", "cpu")  # leaves the accelerator's memory to the runs
    runs = {one.workdir: load_config(one.config, one.flags) for one in trainings}
    validate.dry_run(config for run, config in runs.items() if not run_dir.finished_summary(run))
    for run, config in runs.items():
        if (run / run_dir.CONFIG_FILE).is_file():
            if difference := run_dir.describe_difference(run, validate.validate(config).identity):
                raise ValueError(f"{difference}\nNothing was changed: give another --out")


class Commands:
    """Runs child processes, one at a time; forwards SIGTERM and Ctrl-C as SIGTERM.

    The child saves and exits. A run that receives both a Ctrl-C from the terminal and this SIGTERM treats
    them as one request to stop. Signals that are ignored at the start (nohup) stay ignored.
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

    def run(self, *command: str, **how: Any) -> tuple[int, str | None]:
        """Runs a command by `subprocess.Popen`.

        Returns:
          The exit code, EXIT_PREEMPTED if the command failed after a signal, and the output if piped.
        """
        if self.stopped:
            return EXIT_PREEMPTED, None
        self._child = subprocess.Popen(command, text=True, **how)
        if self.stopped:  # between the lines above
            self._child.terminate()
        printed, _ = self._child.communicate()
        code = self._child.returncode
        return (EXIT_PREEMPTED if code and self.stopped else code), printed

    def train(self, training: Training) -> int:
        """Starts or resumes a run; returns its exit code, 0 if it is finished."""
        print(f"\n{training}", flush=True)
        code, _ = self.run(sys.executable, "-m", "fer_jax.main", *training.words())
        if code == EXIT_PREEMPTED:
            print(f"\n{training.workdir} was stopped; run the same command to resume", file=sys.stderr)
        return code


def origin(runs: Iterable[pathlib.Path]) -> str:
    """Returns the command line, and the commits and devices of the runs in these directories."""
    found = [start for run in runs for start in run_info.read_starts(run)]
    return f"{called()}, {run_info.describe(found)}"


def called() -> str:
    """Returns the command line as Markdown code."""
    program = f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else sys.argv[0]
    return f"`{program} {shlex.join(sys.argv[1:])}".rstrip() + "`"
