"""Timing of peers in turns, each in a process of its own: other load meets all of them alike."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence

# After an idle phase the threads of a process often start on one core, and those of OpenMP stay busy for a
# while after their work: the first seconds are not representative.
_SETTLE_SECONDS = 2.0
_QUOTED_BYTES = 4000  # of the last output of a process that failed

Work = dict[str, Callable[[], object]]  # what a side can do, by name


def serve(actions: Work, device: str) -> None:
    """Runs a side's process: for each line "ACTION COUNT" of the parent, answers the seconds of each call.

    Args:
      actions: what the side can do.
      device: where: "cpu", or a kind and a name, such as "gpu NVIDIA H100".
    """
    for action in actions.values():
        action()  # which compiles it
    # Libraries print to stdout, too.
    print("serving", device, flush=True)
    for line in sys.stdin:
        name, count = line.split()
        started = time.perf_counter()
        while time.perf_counter() - started < _SETTLE_SECONDS:
            actions[name]()
        print("seconds", *timeit.repeat(actions[name], number=1, repeat=int(count)), flush=True)


class Side:
    """A process that works on request.

    Attributes:
      device: that it works on, as passed to `serve`.
    """

    def __init__(self, arguments: Sequence[str]):
        """Starts `python ARGUMENTS`, which calls `serve`, and waits until it has compiled everything."""
        # A file, because a pipe is not read while the process works, and a full one would block it.
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
        """Returns the kind of its device, such as "cpu" or "gpu"."""
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
        raise RuntimeError(f"a side ended early:\n{self._stderr.read().decode(errors='replace')}")


def measure(sides: Mapping[str, Side], action: str, rounds: int, turns: int) -> dict[str, float]:
    """Returns each side's median seconds of an action in its best round; disturbances only add to a round.

    Args:
      sides: by name.
      action: what each is asked for.
      rounds: how often the sides take turns.
      turns: number of calls in each.
    """
    found = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(statistics.median(side.run(action, turns)))
    return {name: min(of) for name, of in found.items()}
