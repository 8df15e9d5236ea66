"""What the processes of a run say when one of them is lost: a line instead of a dump of stacks.

JAX's distributed service aborts the others from a thread in C++, after a text of fifty lines that Python
cannot keep from standard error. So a small process relays it; this file is its program.
"""

import os
import re
import signal
import subprocess
import sys

LOST = "another process of this run ended, or cannot be reached: run the same command in all to resume"
_ABORTS = b"Terminating process because the JAX distributed service"
# Of collectives on the CPU and on GPUs, and of the distributed service.
_BROKEN = ("Gloo", "NCCL", "coordination", "heartbeat", "UNAVAILABLE", "Connection")


def is_loss(error: Exception) -> bool:
    """Returns whether an error of the JAX runtime says that another process is gone."""
    return type(error).__name__ == "JaxRuntimeError" and any(word in str(error) for word in _BROKEN)


def shorten_aborts() -> None:
    """Makes this process's standard error end with `LOST` where JAX's distributed service aborts it."""
    relay = subprocess.Popen([sys.executable, "-S", __file__], stdin=subprocess.PIPE)
    assert relay.stdin is not None  # a pipe
    os.dup2(relay.stdin.fileno(), 2)
    relay.stdin.close()


def _relay() -> None:
    """Copies standard input to standard error, without what follows the announcement of an abort."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends after the process that writes
    kept = b""  # the start of the announcement, perhaps
    while block := os.read(0, 1 << 16):
        kept += block
        if _ABORTS in kept:
            before = re.sub(rb"F\d{4} [^\r\n]*\Z", b"", kept[: kept.index(_ABORTS)])
            os.write(2, before + f"\nerror: {LOST}\n".encode())
            while os.read(0, 1 << 16):
                pass
            return
        held = next((n for n in range(len(_ABORTS) - 1, 0, -1) if kept.endswith(_ABORTS[:n])), 0)
        os.write(2, kept[: len(kept) - held])
        kept = kept[len(kept) - held :]
    os.write(2, kept)


if __name__ == "__main__":
    _relay()
