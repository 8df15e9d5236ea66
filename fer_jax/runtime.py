"""Tunes JAX on the CPU: memory allocation and compiler options."""

import ctypes
import functools
import platform

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_MADV_HUGEPAGE = 14  # linux/mman.h
_HUGE_PAGE = 2 * 2**20
_RESERVE = 4 * 2**30  # several times the memory of a training step

_CPU_OPTIONS = {
    # YNNPACK, jaxlib's default for most operations, is several times slower than Eigen for the weight
    # gradients of convolutions, but faster for matrix products, and 10 times for sums over batch and space.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # The default is 256 bits even on processors with 512-bit registers.
    "xla_cpu_prefer_vector_width": "512",
}


@functools.cache
def tune_cpu() -> None:
    """Makes glibc's malloc keep large blocks for reuse, in large pages, instead of returning them.

    By default every block of 32 MB or more is mapped in pages of 4 kB and unmapped when freed, so a training
    step on the CPU spends much of its time on page faults. The process then holds its peak memory until it
    ends, so only programs call this, and before starting threads. Does nothing without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    libc.mallopt(_M_ARENA_MAX, 1)  # arenas of other threads cannot hold large blocks
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # Reserves addresses for the heap; memory is used only when written to.
    if reserve := libc.malloc(_RESERVE):
        libc.madvise(-(-reserve // _HUGE_PAGE) * _HUGE_PAGE, _RESERVE - _HUGE_PAGE, _MADV_HUGEPAGE)
        libc.free(reserve)


@functools.cache
def compiler_options() -> dict[str, str]:
    """Returns options for `jax.jit(..., compiler_options=...)` on the default backend.

    Empty on GPU and TPU, or if the installed jaxlib does not support the options.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_CPU_OPTIONS)


def run_once_options() -> dict[str, str]:
    """Returns compiler options for programs that run once, where optimization does not pay off."""
    return {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
