"""Counts the operations of a program, and measures a device's rate of matrix products.

XLA's cost analysis of a compiled program omits the operations of cuDNN and cuBLAS on a GPU, which are most of
a training step, and those of oneDNN on a CPU.
"""

import functools
import math
import time

import jax
from jax.extend import core

from fer_jax import runtime

CALLS, ROUNDS = 10, 3
SIDES = {"cpu": 2048}  # side of the matrices by platform, large enough to saturate the device
_SIDE = 8192  # on other platforms


def operations(jaxpr: core.Jaxpr) -> int:
    """Returns the floating-point operations of a program's matrix products and convolutions.

    A multiply-add counts as two operations, as in XLA's cost analysis. Products with zeros from padding or
    dilation and elementwise operations are not counted. A loop of unknown length counts as one iteration, and
    a conditional as its largest branch.

    Args:
      jaxpr: jaxpr of the program, such as `jax.make_jaxpr(function)(*arguments).jaxpr`.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name in ("dot_general", "conv_general_dilated"):
            product = jax.jit(functools.partial(equation.primitive.bind, **params))
            avals = [variable.aval for variable in equation.invars]
            arrays = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]  # without a mesh
            total += int(product.lower(*arrays).cost_analysis()["flops"])
        elif name == "cond":
            total += max(operations(branch.jaxpr) for branch in params["branches"])
        else:
            parts = [getattr(part, "jaxpr", part) for part in jax.tree.leaves(list(params.values()))]
            inner = sum(operations(part) for part in parts if isinstance(part, core.Jaxpr))
            total += inner * params.get("length", 1)  # iterations of a scan
    return total


def matrix_product_rate(dtype: str) -> float:
    """Returns the default device's rate for a large matrix product, in floating-point operations per second.

    The product has JAX's default precision, which rounds float32 factors to TF32 on GPUs.
    """
    side = SIDES.get(jax.default_backend(), _SIDE)
    # Random, because constant matrices take less power, so that a GPU would clock higher than in training.
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
