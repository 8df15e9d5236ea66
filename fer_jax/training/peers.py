"""Reports the loss of another process of a run in one line instead of a stack dump.

JAX's distributed service aborts the remaining processes from C++, with a message of fifty lines on standard
error that Python cannot suppress. A small child process filters it; this file is its program.
"""

import os
import re
import signal
import subprocess
import sys

LOST = "another process of this run ended, or cannot be reached: run the same command in all to resume"
_ABORTS = b"Terminating process because the JAX distributed service"
# From collectives on the CPU and on GPUs, and from the distributed service.
_BROKEN = ("Gloo", "NCCL", "coordination", "heartbeat", "UNAVAILABLE", "Connection")


def is_loss(error: Exception) -> bool:
    """Returns whether an error of the JAX runtime means that another process is lost."""
    return type(error).__name__ == "JaxRuntimeError" and any(word in str(error) for word in _BROKEN)


def shorten_aborts() -> None:
    """Replaces the abort message of JAX's distributed service on standard error by `LOST`."""
    relay = subprocess.Popen([sys.executable, "-S", __file__], stdin=subprocess.PIPE)
    assert relay.stdin is not None  # a pipe
    os.dup2(relay.stdin.fileno(), 2)
    relay.stdin.close()


def _relay() -> None:
    """Copies standard input to standard error, without the message of an abort."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends after its parent
    kept = b""  # a possible start of the abort message
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
