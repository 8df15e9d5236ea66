"""Tests that a process that loses the other processes of its run reports it in one line."""

import subprocess
import sys

import jax
import pytest
from helpers import environment
from test_sharding import coordinator

from fer_jax.training import peers

HEADER = b"F1130 20:14:11.52 28170 client.h:80] "
DUMP = (
    HEADER + b"Terminating process because the JAX distributed service detected fatal errors.\n @ 0x7f absl\n"
)
LINE = f"\nerror: {peers.LOST}\n".encode()


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([b"step 1\rstep 2", b"\rstep 3\n"], b"step 1\rstep 2\rstep 3\n"),
        ([b"Terminating process because", b" of a signal\n"], b"Terminating process because of a signal\n"),
        ([b"log\n" + DUMP, b"Fatal Python error: Aborted\n"], b"log\n" + LINE),
        ([b"\rstep 2", DUMP], b"\rstep 2" + LINE),
        ([DUMP[len(HEADER) :][:20], DUMP[len(HEADER) :][20:]], LINE),
        ([b"Termin"], b"Termin"),
    ],
)
def test_all_but_the_dump_is_passed_on(blocks, expected):
    relay = subprocess.Popen(
        [sys.executable, peers.__file__], stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    for block in blocks:
        relay.stdin.write(block)
    relay.stdin.close()
    assert relay.stderr.read() == expected and relay.wait() == 0


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer"), True),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: Task 1 heartbeat timeout"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed to compile"), False),
        (ValueError("Connection"), False),
    ],
)
def test_errors_of_a_lost_process_are_told_from_others(error, lost):
    assert peers.is_loss(error) == lost


def test_a_process_without_its_coordinator_ends_with_a_line():
    program = (
        "import sys; from fer_jax.training import peers; peers.shorten_aborts()\n"
        "import jax, os, time; number = int(sys.argv[2])\n"
        "jax.distributed.initialize(sys.argv[1], 2, number)\n"
        "os._exit(1) if number == 0 else time.sleep(300)\n"
    )
    address = coordinator()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, address, str(number)],
            env=environment(TF_CPP_MIN_LOG_LEVEL="3"),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = processes[1].communicate(timeout=120)[1]
    processes[0].communicate(timeout=120)
    assert processes[1].returncode != 0
    assert said.endswith(LINE.decode()) and "stack trace" not in said and "Aborted" not in said
