"""What a prediction costs: the arithmetic of one face, and how long one face takes on this machine."""

import os
import pathlib
import platform as machine
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fer_jax import preprocessing, runtime
from fer_jax.data import augment
from fer_jax.loaded_model import LoadedModel

CALLS, WARM_UP = 200, 20


def measure(trained: LoadedModel, face_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """What a report says of the cost: 'flops', see `flops`, and 'latency', see `latency`.

    Args:
      trained: the network.
      face_shape: (H, W, C) of the faces to measure the latency on; None leaves it out (None).
    """
    return {
        "flops": flops(trained.model, trained.variables, trained.input_shape),
        "latency": latency(trained, face_shape) if face_shape else None,
    }


def flops(model: nn.Module, variables: Any, input_shape: Sequence[int]) -> int:
    """Floating-point operations of one face's forward pass, two for each multiply-add.

    The multiply-adds are those of the layers that have a kernel (convolutions and dense layers), each value
    of whose output takes one for every weight that leads to it: the convention of the papers that publish
    such numbers. Normalisation, activation and pooling are not counted. Nothing is computed, and how a
    layer is computed (Winograd's transforms, oneDNN) makes no difference.

    Args:
      model: the network; its layers have Flax's names and shapes of parameters.
      variables: {"params", "batch_stats"}, arrays or their shapes (`jax.ShapeDtypeStruct`).
      input_shape: (S, S, C) of the face.
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
    trained: LoadedModel, face_shape: Sequence[int], *, calls: int = CALLS, warm_up: int = WARM_UP
) -> dict[str, Any]:
    """How long one face takes by itself: from its pixels in memory to the logits, resizing included.

    Args:
      trained: the network.
      face_shape: (H, W, C) of the face.
      calls: how many are timed, one after the other.
      warm_up: how many go before them, untimed.

    Returns:
      'milliseconds', the median; 'quartiles_milliseconds' [lower, upper]; 'calls'; 'hardware'.
    """
    forward = jax.jit(
        preprocessing.make_forward(trained.model, **trained.normalization),
        compiler_options=runtime.compiler_options(),
    )
    variables = jax.device_put(trained.variables)
    face, affine = np.full((1, *face_shape), 128, np.uint8), augment.identity_affine(1)
    seconds = []
    for _ in range(warm_up + calls):
        start = time.perf_counter()
        np.asarray(forward(variables, face, affine))
        seconds.append(time.perf_counter() - start)
    low, middle, high = 1000 * np.quantile(seconds[warm_up:], (0.25, 0.5, 0.75))
    return {
        "milliseconds": float(middle),
        "quartiles_milliseconds": [float(low), float(high)],
        "calls": calls,
        "hardware": hardware(),
    }


def hardware() -> str:
    """The name of the device that JAX computes on by default, with the number of cores for a CPU."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    name, cpuinfo = machine.processor() or machine.machine(), pathlib.Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'s' if cores != 1 else ''}"
