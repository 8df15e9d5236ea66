"""Tests the operation counts of benchmarks/ceilings.py against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from helpers import program
from jax import lax


@pytest.fixture(scope="module")
def ceilings():
    return program("benchmarks/ceilings.py")


def operations(ceilings, function, *arguments):
    return ceilings.operations(jax.make_jaxpr(jax.jit(function))(*arguments).jaxpr)


@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 3), (3, 1)])
def test_operations_of_a_convolution_and_its_gradients(ceilings, stride, groups):
    """Products with padding are not counted: with ones as input, each counted product adds 1 to the sum."""
    x, kernel = jnp.ones((2, 9, 8, 6)), jnp.ones((3, 3, 6 // groups, 6))

    def convolve(x, kernel):
        names, pads = ("NHWC", "HWIO", "NHWC"), [(1, 1), (0, 2)]
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, None, None, names, groups)

    def to_x(gradient, kernel):
        return jax.linear_transpose(lambda x: convolve(x, kernel), x)(gradient)

    def to_kernel(gradient, x):
        return jax.linear_transpose(lambda kernel: convolve(x, kernel), kernel)(gradient)

    y = jnp.ones_like(convolve(x, kernel))
    for function, *arguments in ((convolve, x, kernel), (to_x, y, kernel), (to_kernel, y, x)):
        products = sum(part.sum() for part in jax.tree.leaves(function(*arguments)))
        assert operations(ceilings, function, *arguments) == 2 * products > 0


def test_operations_of_products(ceilings):
    a, b = jnp.ones((5, 2, 3)), jnp.ones((5, 3, 3))
    scan = lambda a: lax.scan(lambda c, _: (c @ b, None), a, length=7)  # noqa: E731
    condition = lambda a: lax.cond(a.sum() > 0, lambda: a @ b, lambda: a @ b + a @ b)  # noqa: E731
    for function, times in ((lambda a: jnp.tanh(a @ b) + 1, 1), (scan, 7), (condition, 2)):
        assert operations(ceilings, function, a) == times * 5 * 2 * 3 * 3 * 2


def test_the_rate_is_that_of_a_matrix_product(ceilings, monkeypatch):
    monkeypatch.setitem(ceilings.SIDES, jax.default_backend(), 128)
    assert ceilings.matrix_product_rate("float32") > 1e7
