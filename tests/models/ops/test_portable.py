"""Tests that `portable` restricts networks to standard operations without changing their results."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.ops import convolution, pooling, portable


def _normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


# One per implementation that it replaces: Winograd, oneDNN, matrix product, shifted sums.
CASES = {
    "winograd": lambda: convolution.convolve(_normal(8, 24, 24, 32), _normal(3, 3, 32, 32)),
    "strided": lambda: convolution.convolve(_normal(2, 9, 9, 4), _normal(3, 3, 4, 5), 2, "symmetric"),
    "pointwise": lambda: convolution.convolve(_normal(2, 9, 9, 4), _normal(1, 1, 4, 5), 2),
    "depthwise": lambda: convolution.convolve(_normal(2, 9, 9, 4), _normal(5, 5, 1, 4), 2),
    "max_pool_2x2": lambda: pooling.max_pool_2x2(_normal(2, 7, 9, 3)),
    "max_pool_3x3": lambda: pooling.max_pool_3x3(_normal(2, 7, 9, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers_in_one_standard_operation(name):
    expected = CASES[name]()
    with portable.portable():
        found, jaxpr = CASES[name](), jax.make_jaxpr(CASES[name])()
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())
    primitive = "reduce_window_max" if "pool" in name else "conv_general_dilated"
    assert str(jaxpr).count(f" {primitive}[") == 1
    assert "custom" not in str(jaxpr)


def test_it_ends_with_the_context_and_does_not_reach_other_threads():
    seen = []
    with portable.portable():
        thread = threading.Thread(target=lambda: seen.append(portable.is_on()))
        thread.start()
        thread.join()
        seen.append(portable.is_on())
    assert [*seen, portable.is_on()] == [False, True, False]
