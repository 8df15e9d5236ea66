"""oneDNN's convolutions and matrix products, which jaxlib for Linux on x86-64 carries but does not use.

XLA knows them as the custom calls `__onednn$convolution` and `__onednn$matmul`, described by the messages of
its xla/service/cpu/onednn_config.proto. That is an interface inside XLA, without a promise, and a call that
it does not understand ends the process: so they are only for the versions of jaxlib on which they have been
tested, and whoever calls them has another way. They compute forward, with the numbers of the backend's own up
to rounding: in float32, or in bfloat16 where the processor multiplies it at more than float32's rate.
"""

import functools
import json
import os
import pathlib
import platform
from collections.abc import Sequence

import jax
import jaxlib

TESTED_JAXLIB = ("0.10.0", "0.10.1", "0.10.2")
# Values of ONEDNN_MAX_CPU_ISA under which oneDNN has no products of bfloat16.
_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def _limit() -> str:
    """Returns the instruction set that oneDNN may use at most, by its own variables; "" without one."""
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()


@functools.cache
def _is_in_jaxlib() -> bool:
    return (
        jaxlib.__version__ in TESTED_JAXLIB
        and platform.system() == "Linux"
        and platform.machine() == "x86_64"
        and jax.default_backend() == "cpu"
        # The partitioner cannot divide such a call between devices.
        and jax.device_count() == 1
        # With SSE4.1 alone its convolutions crash or never end; jaxlib itself needs AVX.
        and _limit() != "SSE41"
    )


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16, and whether oneDNN may use them."""
    if _limit() in _WITHOUT_BFLOAT16:
        return False
    info = pathlib.Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def is_usable(*arrays: jax.Array) -> bool:
    """Whether the calls of this module can take these arrays, on the default backend."""
    types = {str(x.dtype) for x in arrays}
    if types == {"bfloat16"}:
        return _is_in_jaxlib() and _multiplies_bfloat16()
    return types == {"float32"} and _is_in_jaxlib()


def _call(target: str, config: dict, shape: Sequence[int], *operands: jax.Array) -> jax.Array:
    return jax.ffi.ffi_call(
        target,
        jax.ShapeDtypeStruct(shape, operands[0].dtype),
        vmap_method="sequential",
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(config),
    )(*operands)


def matmul(a: jax.Array, b: jax.Array, transpose_a: bool = False, transpose_b: bool = False) -> jax.Array:
    """Matrix product [M, K] @ [K, N] -> [M, N]; a factor that is transposed is given as it lies."""
    config = {"onednn_matmul_config": {"transpose_a": transpose_a, "transpose_b": transpose_b}}
    shape = (a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1])
    return _call("__onednn$matmul", config, shape, a, b)


def convolve(
    x: jax.Array, kernel: jax.Array, pads: Sequence[tuple[int, int]], strides: Sequence[int], groups: int = 1
) -> jax.Array:
    """Convolution: [B, H, W, C] and kernel [h, w, C / groups, D] -> [B, H', W', D].

    Args:
      x, kernel: as above, or with a third axis before the others.
      pads: zeros before and after each axis.
      strides: of each axis.
      groups: as `lax.conv_general_dilated` has it.
    """
    rank = len(pads)
    axes = x.shape[1:-1], kernel.shape[:rank], pads, strides
    sides = [(n + sum(pad) - size) // stride + 1 for n, size, pad, stride in zip(*axes, strict=True)]
    images = {"batch_dim": 0, "feature_dim": rank + 1, "spatial_dims": list(range(1, rank + 1))}
    filters = {"spatial_dims": list(range(rank)), "input_feature_dim": rank, "output_feature_dim": rank + 1}
    config = {
        "dims": x.ndim,
        "input": {"dims": x.ndim, "data": images},
        "kernel": {"dims": x.ndim, "filter": filters},
        "output": {"dims": x.ndim, "data": images},
        "window": {
            "size": kernel.shape[:rank],
            "pad_left": [before for before, _ in pads],
            "pad_right": [after for _, after in pads],
            "strides": strides,
            "window_dilations": [1] * rank,
        },
        "feature_groups": groups,
    }
    shape = (len(x), *sides, kernel.shape[-1])
    return _call("__onednn$convolution", {"onednn_conv_config": config}, shape, x, kernel)
