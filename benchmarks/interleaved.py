"""Sides of a benchmark as processes that take turns: whatever else a machine does meets all of them."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

# A process that was idle often finds its threads on one core at first, and OpenMP's keep theirs busy for a
# while when the work is done: what the first seconds take is not what it takes.
_SETTLE_SECONDS = 2.0
_QUOTED_BYTES = 4000  # of what a process that failed said last

Work = dict[str, Callable[[], object]]  # what a side can do, by name


def serve(actions: Work, device: str) -> None:
    """A side's process: for a line "train 3" from the parent settles, does it that often, answers seconds.

    Args:
      actions: what it can do.
      device: that it does it on: "cpu", or the kind and the name, such as "gpu NVIDIA H100".
    """
    for action in actions.values():
        action()  # which compiles it
    # Libraries print to stdout too.
    print("serving", device, flush=True)
    for line in sys.stdin:
        name, count = line.split()
        started = time.perf_counter()
        while time.perf_counter() - started < _SETTLE_SECONDS:
            actions[name]()
        seconds = []
        for _ in range(int(count)):
            started = time.perf_counter()
            actions[name]()
            seconds.append(time.perf_counter() - started)
        print("seconds", *seconds, flush=True)


class Side:
    """A process that works when asked to.

    Attributes:
      device: that it works on, as it told `serve`.
    """

    def __init__(self, arguments: Sequence[str]):
        """Starts `python ARGUMENTS`, which calls `serve`, and waits until it has compiled everything."""
        # A file: nobody reads a pipe while the process works, and when it is full the process waits for that.
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
        """Of its device, such as "cpu" or "gpu"."""
        return self.device.split()[0]

    def run(self, action: str, count: int) -> list[float]:
        """Seconds of each of `count` turns."""
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


def measure(sides: dict[str, Side], action: str, rounds: int, turns: int) -> dict[str, float]:
    """Seconds of an action by side, doing it `turns` times in each round: the median of the best round.

    Whatever disturbs a round only adds to it.
    """
    medians = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            medians[name].append(statistics.median(side.run(action, turns)))
    return {name: min(found) for name, found in medians.items()}
