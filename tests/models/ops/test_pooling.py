"""Tests pooling and its gradients against Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.models.ops import pooling

POOLS = {
    2: (pooling.max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2))),
    3: (pooling.max_pool_3x3, lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))),
}


@pytest.mark.parametrize("size", POOLS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(height=st.integers(2, 9), width=st.integers(2, 9), seed=st.integers(0, 99))
def test_max_pools_and_their_gradients_are_those_of_flax(size, height, width, seed):
    """Includes ties, which are frequent among integers, and negative values."""
    ours, theirs = POOLS[size]
    rng = np.random.default_rng(seed)
    x = np.rint(rng.normal(size=(2, height, width, 5))).astype(np.float32)
    gradient = np.rint(8 * rng.normal(size=jax.eval_shape(theirs, x).shape)).astype(np.float32)

    @jax.jit
    def run(x, gradient):
        vjps = jax.vjp(ours, x), jax.vjp(theirs, x)
        return [(y, *pull(gradient)) for y, pull in vjps]

    found, expected = run(x, gradient)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_window_with_nan_gives_nan():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(jnp.nan)
    for pool, _ in POOLS.values():
        assert np.isnan(pool(x)).sum() == 1
