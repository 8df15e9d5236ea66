"""Counts the operations of a program, and measures the rate at which a device multiplies matrices.

XLA's own cost analysis leaves out what cuDNN and cuBLAS compute on a GPU, most of a training step, and what
oneDNN computes on a CPU.
"""

import math
import time

import jax
import numpy as np
from jax.extend import core

from fer_jax import runtime

CALLS, ROUNDS = 10, 3
SIDES = {"cpu": 2048}  # of the matrices, by platform: large enough to fill the device
_SIDE = 8192  # on all others


def operations(jaxpr: core.Jaxpr) -> int:
    """Floating-point operations of the matrix products and convolutions in a program, two a multiply-add.

    Products with the zeros of paddings and dilations are not counted, nor anything element by element. A loop
    of unknown length counts once, and of the branches of a condition the largest.

    Args:
      jaxpr: such as `jax.make_jaxpr(function)(*arguments).jaxpr`.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            ((contracted, _), _) = params["dimension_numbers"]
            sides = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(sides[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            total += 2 * _multiply_adds(equation)
        elif name == "cond":
            total += max(operations(branch.jaxpr) for branch in params["branches"])
        else:
            parts = [getattr(part, "jaxpr", part) for part in jax.tree.leaves(list(params.values()))]
            inner = sum(operations(part) for part in parts if isinstance(part, core.Jaxpr))
            total += inner * params.get("length", 1)  # of a scan
    return total


def _multiply_adds(convolution: core.JaxprEqn) -> int:
    params = convolution.params
    left, right, out = (
        [variable.aval.shape[axis] for axis in spec]
        for variable, spec in zip(
            (*convolution.invars, *convolution.outvars), params["dimension_numbers"], strict=True
        )
    )  # as (batch, features, *space), the kernel as (features out, features in, *space)
    taps = 1
    axes = zip(
        left[2:],
        right[2:],
        out[2:],
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    )
    for size, kernel, places, stride, (before, _), apart, kernel_apart in axes:
        reached = stride * np.arange(places)[:, None] + kernel_apart * np.arange(kernel) - before
        taps *= int(((reached >= 0) & (reached % apart == 0) & (reached // apart < size)).sum())
    return out[0] * out[1] * right[1] * taps


def matrix_product_rate(dtype: str) -> float:
    """Measures the default device's rate at a large matrix product, in floating-point operations a second.

    The product is as precise as JAX makes it by default: a GPU rounds the factors of float32 to TF32.
    """
    side = SIDES.get(jax.default_backend(), _SIDE)
    # Noise: of constants the products take less power, and a GPU is clocked higher than any training sees.
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(lambda a: a @ a, compiler_options=runtime.compiler_options())
    product(matrix).block_until_ready()
    best = math.inf
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            result = product(matrix)
        result.block_until_ready()
        best = min(best, (time.perf_counter() - started) / CALLS)
    return 2 * side**3 / best
