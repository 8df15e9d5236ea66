"""Tests the layers against Flax and NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models import layers
from fer_jax.models.ops.pooling import relu_pool


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual, expected, tolerance=1e-5):
    """Compares relative to the largest expected value, because rounding errors come from long sums."""
    close = lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max())  # noqa: E731
    jax.tree.map(close, actual, expected)


@pytest.mark.parametrize("depthwise", [False, True])
def test_conv_layer_has_the_parameters_and_numbers_of_flax(depthwise):
    """ops/test_convolution.py tests all sizes, strides, and paddings."""
    x, groups = normal(0, 2, 8, 9, 32), 32 if depthwise else 1
    ours = layers.Conv(32, depthwise=depthwise)
    flax = nn.Conv(32, (3, 3), padding="SAME", feature_group_count=groups)
    variables = ours.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, flax.init(jax.random.key(0), x))
    variables["params"]["bias"] = normal(1, 32)
    assert_close(ours.apply(variables, x), flax.apply(variables, x))
    assert ours.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_conv_layer_starts_from_he_normal():
    kernel = layers.Conv(64).init(jax.random.key(0), normal(0, 1, 4, 4, 64))["params"]["kernel"]
    assert abs(float(kernel.std()) / (2 / (9 * 64)) ** 0.5 - 1) < 0.02


def flax_norm(train):
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-3)


def norm_variables(channels):
    rng = np.random.default_rng(7)
    return {
        "params": {"scale": rng.uniform(-1.5, 1.5, channels).astype(np.float32), "bias": normal(3, channels)},
        "batch_stats": {"mean": normal(4, channels), "var": rng.uniform(0.5, 2, channels).astype(np.float32)},
    }


def apply(norm, after, variables):
    """Returns (params, x) -> (result, updated statistics)."""

    def run(params, x):
        y, updated = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return after(y), updated

    return run


def identity(y):
    return y


def flax_relu_pool(y):
    return nn.max_pool(nn.relu(y), (2, 2), (2, 2))


@pytest.mark.parametrize(
    ("shape", "tail", "after"),
    [
        ((6, 8, 7, 5), layers.BatchNorm.tail, identity),
        ((6, 8, 6, 5), nn.relu, nn.relu),
        ((16, 5), nn.elu, nn.elu),
        ((4, 6, 7, 5), relu_pool, flax_relu_pool),
        ((4, 8, 6, 5), relu_pool, flax_relu_pool),
    ],
)
def test_batch_norm_in_training_is_flax_batch_norm(shape, tail, after):
    """Compares result, statistics, and gradients; some scales are negative."""
    variables, x = norm_variables(shape[-1]), 2 * normal(5, *shape) + 1
    assert variables["params"]["scale"].min() < 0 < variables["params"]["scale"].max()
    arguments = variables["params"], x
    ours = apply(layers.BatchNorm(train=True, tail=tail), identity, variables)
    theirs = apply(flax_norm(True), after, variables)

    @jax.jit
    def run(gradient):
        vjps = [jax.vjp(function, *arguments, has_aux=True) for function in (ours, theirs)]
        return [(y, updated, pull(gradient)) for y, pull, updated in vjps]

    assert_close(*run(normal(6, *jax.eval_shape(ours, *arguments)[0].shape)))


@pytest.mark.parametrize("tail", [nn.relu, relu_pool])
def test_batch_norm_averages_over_a_mapped_axis(tail):
    """Two halves of a batch that share statistics give the results of the entire batch."""
    variables, x = norm_variables(3), normal(5, 8, 4, 4, 3)

    def run(axis_name, x):
        norm = layers.BatchNorm(train=True, tail=tail, axis_name=axis_name)
        y, pull, updated = jax.vjp(
            lambda x: norm.apply(variables, x, mutable=["batch_stats"]), x, has_aux=True
        )
        return y, pull(y**2)[0], updated

    mapped = jax.jit(jax.vmap(lambda x: run("parts", x), axis_name="parts"))
    y, dx, updated = mapped(x.reshape(2, 4, 4, 4, 3))
    expected = jax.jit(lambda x: run(None, x))(x)
    assert_close((y.reshape(expected[0].shape), dx.reshape(x.shape)), expected[:2])
    assert_close(jax.tree.map(lambda s: s[1], updated), expected[2])


def test_batch_norm_in_evaluation_is_flax_batch_norm():
    variables, x = norm_variables(5), normal(5, 4, 6, 6, 5)
    y = layers.BatchNorm(train=False, tail=nn.relu).apply(variables, x)
    assert_close(y, nn.relu(flax_norm(False).apply(variables, x)))


def test_batch_norm_of_a_constant_input_is_finite():
    x = jnp.full((4, 3, 3, 2), 1000.0)
    norm = layers.BatchNorm(train=True)
    variables = norm.init(jax.random.key(0), x)
    gradient = jax.grad(lambda x: norm.apply(variables, x, mutable=["batch_stats"])[0].sum())(x)
    assert np.isfinite(gradient).all()


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    variables, x = norm_variables(5), normal(5, 64, 4, 4, 5).astype(jnp.bfloat16)
    norm = layers.BatchNorm(train=True, dtype=jnp.bfloat16)
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    _, expected = flax_norm(True).apply(variables, x.astype(jnp.float32), mutable=["batch_stats"])
    assert_close(updated, expected)
