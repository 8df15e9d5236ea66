"""oneDNN's convolutions and matrix products, which jaxlib for Linux on x86-64 contains but does not use.

XLA exposes them as the custom calls `__onednn$convolution` and `__onednn$matmul`, configured by the messages
in its xla/service/cpu/onednn_config.proto. This interface is internal to XLA, and an invalid call ends the
process, so the calls are made only with tested versions of jaxlib, and every caller has an alternative. They
compute the forward pass in float32 or, on processors with instructions for it, bfloat16. Results equal XLA's
up to rounding.
"""

import functools
import json
import logging
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib

TESTED_JAXLIB = ("0.10.0", "0.10.1", "0.10.2")
# Values of ONEDNN_MAX_CPU_ISA that exclude the bfloat16 instructions.
_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def _limit() -> str:
    """Returns the newest instruction set that oneDNN's environment variables allow; "" for no limit."""
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()


@functools.cache
def _is_in_jaxlib() -> bool:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    if jaxlib.__version__ not in TESTED_JAXLIB:
        if jax.default_backend() == "cpu":
            logging.warning(
                "convolutions on this CPU are several times slower with jaxlib %s than with %s, the versions "
                "whose oneDNN calls have been tested: pip install -c constraints.txt -e .",
                jaxlib.__version__,
                ", ".join(TESTED_JAXLIB),
            )
        return False
    # XLA cannot partition custom calls over devices. Limited to SSE4.1, oneDNN's convolutions crash or hang.
    return jax.device_count() == 1 and _limit() != "SSE41"


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Returns whether the processor has bfloat16 instructions that oneDNN may use."""
    if _limit() in _WITHOUT_BFLOAT16:
        return False
    info = pathlib.Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def is_usable(dtype: Any) -> bool:
    """Returns whether CPU programs can make this module's calls on arrays of a dtype."""
    name = jnp.dtype(dtype).name
    return _is_in_jaxlib() and (name == "float32" or name == "bfloat16" and _multiplies_bfloat16())


def _call(target: str, config: dict, shape: Sequence[int], *operands: jax.Array) -> jax.Array:
    return jax.ffi.ffi_call(
        target,
        jax.ShapeDtypeStruct(shape, operands[0].dtype),
        vmap_method="sequential",
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(config),
    )(*operands)


def matmul(a: jax.Array, b: jax.Array, transpose_a: bool = False, transpose_b: bool = False) -> jax.Array:
    """Returns the product [M, N] of [M, K] and [K, N]; a factor to transpose is given as [K, M] or [N, K]."""
    config = {"onednn_matmul_config": {"transpose_a": transpose_a, "transpose_b": transpose_b}}
    shape = (a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1])
    return _call("__onednn$matmul", config, shape, a, b)


def convolve(
    x: jax.Array, kernel: jax.Array, pads: Sequence[tuple[int, int]], strides: Sequence[int], groups: int = 1
) -> jax.Array:
    """Returns the convolution [B, H', W', D] or [B, D', H', W', D].

    Args:
      x: [B, H, W, C] or [B, D, H, W, C].
      kernel: [h, w, C / groups, D] or [d, h, w, C / groups, D].
      pads: padding (before, after) of each spatial axis.
      strides: stride along each spatial axis.
      groups: `feature_group_count` of `lax.conv_general_dilated`.
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
