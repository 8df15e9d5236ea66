"""Times peers in turns, each in its own process, so that other load on the machine affects all of them."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence

from fer_jax.errors import ExplainedError

# After an idle phase, the threads of a process often start on one core, and OpenMP's threads spin for a while
# after their work, so the first seconds are not representative.
_SETTLE_SECONDS = 2.0
_QUOTED_BYTES = 4000  # bytes quoted from the end of a failed process's output

Work = dict[str, Callable[[], object]]  # the actions of a side, by name


def serve(actions: Work, device: str) -> None:
    """Serves a side in its process: for each line "ACTION COUNT" on stdin, prints the seconds of each call.

    Args:
      actions: the actions of the side.
      device: the side's device: "cpu", or a kind and a name, such as "gpu NVIDIA H100".
    """
    for action in actions.values():
        action()  # compiles
    # The first word marks replies, because libraries print to stdout, too.
    print("serving", device, flush=True)
    for line in sys.stdin:
        name, count = line.split()
        started = time.perf_counter()
        while time.perf_counter() - started < _SETTLE_SECONDS:
            actions[name]()
        print("seconds", *timeit.repeat(actions[name], number=1, repeat=int(count)), flush=True)


class Side:
    """A child process that runs and times actions on request.

    Attributes:
      device: its device, as passed to `serve`.
    """

    def __init__(self, arguments: Sequence[str]):
        """Starts `python ARGUMENTS`, which calls `serve`, and waits until it has compiled everything."""
        # A file instead of a pipe, because a pipe that is not read would block the process when full.
        self._stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self.device = self._answer("serving")

    @property
    def kind(self) -> str:
        """Returns the kind of the device, such as "cpu" or "gpu"."""
        return self.device.split()[0]

    def run(self, action: str, count: int) -> list[float]:
        """Returns the seconds of each of `count` calls."""
        self.process.stdin.write(f"{action} {count}\n")
        self.process.stdin.flush()
        return [float(value) for value in self._answer("seconds").split()]

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()
        self._stderr.close()

    def _answer(self, expected: str) -> str:
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == expected:
                return rest
        self.process.communicate()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - _QUOTED_BYTES))
        raise ExplainedError(f"a side ended early:\n{self._stderr.read().decode(errors='replace')}")


def measure(sides: Mapping[str, Side], action: str, rounds: int, turns: int) -> dict[str, float]:
    """Returns each side's median seconds per call in its best round, which is disturbed least.

    Args:
      sides: sides by name.
      action: action to run.
      rounds: number of rounds, in each of which every side takes a turn.
      turns: number of calls per turn.
    """
    found = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(statistics.median(side.run(action, turns)))
    return {name: min(of) for name, of in found.items()}
