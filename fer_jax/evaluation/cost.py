"""Measures the cost of a prediction: FLOPs and latency of one face."""

import os
import pathlib
import platform
import re
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fer_jax import runtime
from fer_jax.data import augment, preprocessing
from fer_jax.pretrained.loaded_model import LoadedModel


def measure(model: LoadedModel, face_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Returns 'flops' and 'latency' for a report; the latency for faces (H, W, C), None without a shape."""
    return {
        "flops": flops(model.model, model.variables, model.input_shape),
        "latency": latency(model, face_shape) if face_shape else None,
    }


def flops(model: nn.Module, variables: Any, input_shape: Sequence[int]) -> int:
    """Counts the floating-point operations of the forward pass of one face, two per multiply-add.

    Counts layers with a kernel (convolutions and dense layers), as papers do, without normalization,
    activation, and pooling. Traces shapes only, so the result does not depend on how layers are computed
    (Winograd, oneDNN).

    Args:
      model: a network whose layers have Flax's parameter names and shapes.
      variables: {"params", "batch_stats"}, arrays or their shapes (`jax.ShapeDtypeStruct`).
      input_shape: (S, S, C) of a face.
    """
    multiply_adds = 0

    def count(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        nonlocal multiply_adds
        result = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.has_variable("params", "kernel"):
            kernel = context.module.get_variable("params", "kernel")
            multiply_adds += result.size // kernel.shape[-1] * kernel.size
        return result

    face = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
    with nn.intercept_methods(count):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, face)
    return 2 * multiply_adds


def latency(
    model: LoadedModel, face_shape: Sequence[int], *, calls: int = 200, warm_up: int = 20
) -> dict[str, Any]:
    """Measures the time of a batch of one face, from uint8 pixels (H, W, C) in memory to logits.

    Returns:
      'milliseconds', the median of `calls` calls after `warm_up` untimed ones; 'quartiles_milliseconds'
      [lower, upper]; 'calls'; 'hardware'.
    """
    forward = jax.jit(
        preprocessing.make_forward(model.model, **model.normalization),
        compiler_options=runtime.compiler_options(),
    )
    variables = jax.device_put(model.variables)
    face, affine = np.full((1, *face_shape), 128, np.uint8), augment.identity_affine(1)
    seconds = timeit.repeat(
        lambda: np.asarray(forward(variables, face, affine)), number=1, repeat=warm_up + calls
    )
    low, middle, high = (1000 * np.quantile(seconds[warm_up:], (0.25, 0.5, 0.75))).tolist()
    return {
        "milliseconds": middle,
        "quartiles_milliseconds": [low, high],
        "calls": calls,
        "hardware": hardware(),
    }


def hardware() -> str:
    """Returns the name of JAX's default device, for a CPU with the number of cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.*\S)", cpuinfo.read_text() if cpuinfo.is_file() else "", re.M)
    name = model[1] if model else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'s' if cores != 1 else ''}"
