"""Settings with which JAX runs well on a CPU: an allocator that keeps memory, and compiler options."""

import ctypes
import functools
import platform

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_MADV_HUGEPAGE = 14  # linux/mman.h
_HUGE_PAGE = 2 * 2**20
_RESERVE = 4 * 2**30  # several times what a training step needs

_CPU_OPTIONS = {
    # YNNPACK, jaxlib's default for most operations, takes several times as long as Eigen for the weight
    # gradients of convolutions, but less time for matrix products, and a tenth for sums over batch and space.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # The default is 256 bits even if the processor has registers of 512.
    "xla_cpu_prefer_vector_width": "512",
}


@functools.cache
def tune_cpu() -> None:
    """Makes glibc's malloc keep large blocks for reuse, in large pages, instead of returning them.

    By default every block of 32 MB or more is mapped again, in pages of 4 kB, and unmapped when freed, so a
    training step on the CPU spends much of its time on page faults. The process then holds its peak memory
    until it ends, so only programs call this, before anything else: threads keep an arena that exists.
    Does nothing if the C library is not glibc.
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
    # Addresses for the heap to grow in; memory is used only where it is written to.
    if reserve := libc.malloc(_RESERVE):
        libc.madvise(-(-reserve // _HUGE_PAGE) * _HUGE_PAGE, _RESERVE - _HUGE_PAGE, _MADV_HUGEPAGE)
        libc.free(reserve)


@functools.cache
def compiler_options() -> dict[str, str]:
    """Returns options for `jax.jit(..., compiler_options=...)` on the default backend.

    There are none on a GPU or TPU, or if the installed jaxlib does not know them.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_CPU_OPTIONS)


def run_once_options() -> dict[str, str]:
    """Returns options for programs that run once, which take longer to optimize than to run."""
    return {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
