"""What this machine's processor needs before JAX runs well on it: memory kept, convolutions on Eigen."""

import ctypes
import functools
import platform

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_MADV_HUGEPAGE = 14  # linux/mman.h
_HUGE_PAGE = 2 * 2**20
_RESERVE = 4 * 2**30  # several times what a training step needs

_CPU_OPTIONS = {
    # The library (YNNPACK) that jaxlib sends much to by default takes several times as long as Eigen over the
    # weight gradients of convolutions, but less over matrix products and a tenth over sums over batch and
    # space: leave it those.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # The default is 256 bits even where the processor has registers of 512.
    "xla_cpu_prefer_vector_width": "512",
}


@functools.cache
def tune_cpu() -> None:
    """Make glibc's malloc keep large blocks for reuse, in large pages, instead of returning them.

    By default every block of 32 MB or more is mapped afresh, in pages of 4 kB, and unmapped when freed, so
    a training step on the CPU spends much of its time on page faults. Affects the whole process,
    which holds its peak memory until it ends, so it is for programs to call, and does nothing where the C
    library is not glibc. Call it first of all: a thread, or one that comes after it, keeps an arena
    that there already is.
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
    # A range of addresses for the heap to grow in; memory is taken only where it is written to.
    if reserve := libc.malloc(_RESERVE):
        libc.madvise(-(-reserve // _HUGE_PAGE) * _HUGE_PAGE, _RESERVE - _HUGE_PAGE, _MADV_HUGEPAGE)
        libc.free(reserve)


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` on the default backend; often none.

    Empty on a GPU or TPU, and where the installed jaxlib does not know them.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_CPU_OPTIONS)


def run_once_options() -> dict[str, str]:
    """Options for what runs once: on the CPU optimising an initialisation takes seconds, running it none."""
    return {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
