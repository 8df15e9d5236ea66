"""Tests the one-line explanations of errors."""

import errno

import pytest

from fer_jax import errors
from fer_jax.training.monitoring import NonFiniteLossError

FULL = "the disk of runs/cnn is full: free space and run the same command to resume"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        # TensorStore and TensorFlow use their own exception types.
        (RuntimeError("RESOURCE_EXHAUSTED: Error writing: [28: No space left on device]"), FULL),
        (ValueError("config.seed is -1"), "config.seed is -1"),
        (FileNotFoundError("no weights at x"), "no weights at x"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 40 bytes."), "out of memory: lower the"),
        (MemoryError("no"), "out of memory: lower the batch"),
    ],
)
def test_what_a_user_can_do_something_about(error, line):
    assert errors.explain(error, "runs/cnn").startswith(line)


def test_mistakes_of_the_program_keep_their_traceback():
    assert errors.explain(KeyError("x"), "runs/cnn") is None
    assert errors.explain(TypeError("x"), "runs/cnn") is None
    assert issubclass(NonFiniteLossError, errors.ExplainedError)
