"""Tests that freed memory is kept, and that the installed jaxlib supports the compiler options."""

import platform as system

import jax
import numpy as np
import pytest
from helpers import run_python

from fer_jax import runtime

FAULTS = """
import ctypes, resource, sys, threading
from fer_jax import runtime
if sys.argv[1] == "tuned":
    runtime.tune_cpu()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = libc.malloc(64 * 2**20)
        ctypes.memset(block, 1, 64 * 2**20)
        libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

faults()
for _ in range(2):  # in other threads too, which have arenas of their own by default
    thread = threading.Thread(target=faults)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(system.libc_ver()[0] != "glibc", reason="needs glibc, whose malloc is tuned")
def test_large_blocks_are_used_again_without_page_faults(tmp_path):
    script = tmp_path / "faults.py"
    script.write_text(FAULTS)
    faults = {}
    for mode in ("plain", "tuned"):
        process = run_python(script, mode)
        assert process.returncode == 0, process.stderr
        faults[mode] = [int(line) for line in process.stdout.split()]
    # Of 64 MB in pages of 4 kB, or of 2 MB, ten times over: the first time at most.
    assert all(count <= 64 * 256 + 500 for count in faults["tuned"])
    assert all(count < 500 for count in faults["tuned"][1:])
    assert all(count > 2 * sum(faults["tuned"]) for count in faults["plain"][1:]), faults


def test_options_are_taken_and_change_no_number():
    x = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)

    def work(x):
        return (x @ x.T).sum(axis=0)

    expected = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    for options in (runtime.compiler_options(), runtime.run_once_options()):
        assert jax.default_backend() == "cpu" and options
        result = jax.jit(work, compiler_options=options)(x)
        np.testing.assert_allclose(result, expected.sum(axis=0), rtol=1e-4, atol=1e-3)


def test_other_devices_and_other_jaxlibs_get_no_options(monkeypatch):
    uncached = runtime.compiler_options.__wrapped__
    monkeypatch.setattr(runtime, "_CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert uncached() == {}
    monkeypatch.setattr(runtime.jax, "default_backend", lambda: "gpu")
    assert uncached() == {} == runtime.run_once_options()
