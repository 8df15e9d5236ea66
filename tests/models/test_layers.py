"""The layers against Flax's own, their gradients and their numbers on odd sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models import layers
from fer_jax.models.ops import convolution


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual, expected, tolerance=1e-5):
    """Relative to the largest expected value: rounding errors are those of sums of many terms."""
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max()),
        actual,
        expected,
    )


def lax_convolution(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    "height, width, inputs, outputs",
    [(15, 15, 32, 48), (14, 16, 40, 32), (1, 64, 32, 32), (3, 3, 33, 35), (6, 5, 1, 32), (6, 6, 3, 8)],
)
def test_convolution_and_its_gradients_are_those_of_lax(height, width, inputs, outputs):
    x, kernel = normal(0, 3, height, width, inputs), normal(1, 3, 3, inputs, outputs)
    y, pull = jax.vjp(convolution.convolve, x, kernel)
    expected, expected_pull = jax.vjp(lax_convolution, x, kernel)
    gradient = normal(2, *y.shape)
    assert_close((y, *pull(gradient)), (expected, *expected_pull(gradient)))


def test_convolution_in_bfloat16_has_that_type():
    x, kernel = normal(0, 2, 6, 6, 32), normal(1, 3, 3, 32, 32)
    y = convolution.convolve(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert_close(y.astype(jnp.float32), lax_convolution(x, kernel), 2e-2)


def test_conv_layer_has_the_parameters_and_numbers_of_flax():
    x = normal(0, 2, 8, 8, 32)
    ours, flax = layers.Conv(40), nn.Conv(40, (3, 3), padding="SAME")
    variables = ours.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, flax.init(jax.random.key(0), x))
    variables["params"]["bias"] = normal(1, 40)
    assert_close(ours.apply(variables, x), flax.apply(variables, x))
    assert ours.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_conv_layer_starts_from_he_normal():
    kernel = layers.Conv(64).init(jax.random.key(0), normal(0, 1, 4, 4, 64))["params"]["kernel"]
    assert abs(float(kernel.std()) / (2 / (9 * 64)) ** 0.5 - 1) < 0.02


@pytest.mark.parametrize("height, width", [(4, 6), (5, 4), (7, 9), (2, 2), (3, 3)])
def test_max_pool_is_flax_max_pool(height, width):
    assert_pools_alike(layers.max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2)), height, width)


def assert_pools_alike(ours, theirs, height, width):
    """Results and gradients are the same, those of equal values and negative ones too."""
    x = jnp.round(normal(0, 2, height, width, 5))
    y, pull = jax.vjp(ours, x)
    expected, expected_pull = jax.vjp(theirs, x)
    np.testing.assert_array_equal(y, expected)
    gradient = jnp.round(8 * normal(1, *y.shape))
    np.testing.assert_array_equal(pull(gradient)[0], expected_pull(gradient)[0])


def flax_norm(train):
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-3)


def norm_variables(channels):
    rng = np.random.default_rng(7)
    return {
        "params": {"scale": rng.uniform(-1.5, 1.5, channels).astype(np.float32), "bias": normal(3, channels)},
        "batch_stats": {"mean": normal(4, channels), "var": rng.uniform(0.5, 2, channels).astype(np.float32)},
    }


@pytest.mark.parametrize("shape", [(6, 8, 7, 5), (16, 5)])
@pytest.mark.parametrize("tail", [None, nn.relu, nn.elu])
def test_batch_norm_in_training_is_flax_batch_norm(shape, tail):
    variables, x = norm_variables(shape[-1]), 2 * normal(5, *shape) + 1
    if tail is None:
        ours, after = layers.BatchNorm(train=True), lambda y: y
    else:
        ours, after = layers.BatchNorm(train=True, tail=tail), tail

    def run(module, after, params, x):
        whole = {"params": params, "batch_stats": variables["batch_stats"]}
        y, updated = module.apply(whole, x, mutable=["batch_stats"])
        return after(y), updated

    arguments = variables["params"], x
    y, pull, updated = jax.vjp(lambda p, x: run(ours, lambda y: y, p, x), *arguments, has_aux=True)
    expected, expected_pull, expected_updated = jax.vjp(
        lambda p, x: run(flax_norm(True), after, p, x), *arguments, has_aux=True
    )
    gradient = normal(6, *y.shape)
    assert_close((y, updated), (expected, expected_updated))
    assert_close(pull(gradient), expected_pull(gradient))


@pytest.mark.parametrize("height, width", [(6, 7), (8, 6)])
def test_batch_norm_pools_in_its_tail(height, width):
    """Result, statistics and gradients of Flax's, ReLU and pooling; two channels' scale is negative."""
    variables, x = norm_variables(5), normal(5, 4, height, width, 5)
    scale = variables["params"]["scale"] * np.float32([1, -1, 1, 1, -1])
    params = {**variables["params"], "scale": scale}

    def run(norm, after, params, x):
        y, updated = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return after(y), updated

    inside = layers.BatchNorm(train=True, tail=layers.relu_pool)
    y, pull, updated = jax.vjp(lambda p, x: run(inside, lambda y: y, p, x), params, x, has_aux=True)
    expected, expected_pull, expected_updated = jax.vjp(
        lambda p, x: run(flax_norm(True), lambda y: nn.max_pool(nn.relu(y), (2, 2), (2, 2)), p, x),
        params,
        x,
        has_aux=True,
    )
    assert_close((y, updated), (expected, expected_updated))
    gradient = normal(6, *y.shape)
    assert_close(pull(gradient), expected_pull(gradient))


def test_batch_norm_pools_alike_over_a_mapped_axis():
    """Two halves of a batch that share their statistics are the whole batch."""
    variables, x = norm_variables(5), normal(5, 4, 6, 6, 5)

    def loss(x, axis_name=None):
        norm = layers.BatchNorm(train=True, tail=layers.relu_pool, axis_name=axis_name)
        y, _ = norm.apply(variables, x, mutable=["batch_stats"])
        return (y**3).sum()

    halves = x.reshape(2, 2, *x.shape[1:])
    mapped = jax.vmap(jax.grad(lambda x: loss(x, "halves")), axis_name="halves")(halves)
    assert_close(mapped.reshape(x.shape), jax.grad(loss)(x))


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


def test_batch_norm_averages_over_a_mapped_axis():
    variables, x = norm_variables(3), normal(5, 8, 4, 4, 3)
    gradient = normal(6, 8, 4, 4, 3)

    def run(axis_name, x, gradient):
        def apply(x):
            norm = layers.BatchNorm(train=True, axis_name=axis_name)
            return norm.apply(variables, x, mutable=["batch_stats"])

        y, pull, updated = jax.vjp(apply, x, has_aux=True)
        return y, pull(gradient)[0], updated

    split = jax.vmap(lambda x, g: run("parts", x, g), axis_name="parts")
    y, dx, updated = split(x.reshape(2, 4, 4, 4, 3), gradient.reshape(2, 4, 4, 4, 3))
    expected = run(None, x, gradient)
    assert_close((y.reshape(x.shape), dx.reshape(x.shape)), expected[:2])
    assert_close(jax.tree.map(lambda s: s[1], updated), expected[2])


def test_squeeze_excitation_by_hand():
    x, layer = normal(0, 2, 3, 4, 8), layers.SqueezeExcite(2)
    reduce, expand = normal(1, 8, 2), normal(2, 2, 8)
    params = {
        "reduce": {"kernel": reduce, "bias": normal(3, 2)},
        "expand": {"kernel": expand, "bias": normal(4, 8)},
    }
    hidden = np.maximum(x.mean((1, 2)) @ reduce + normal(3, 2), 0)
    gate = 1 / (1 + np.exp(-(hidden @ expand + normal(4, 8))))
    assert_close(layer.apply({"params": params}, x), x * gate[:, None, None])
    initial = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, initial)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_strided_convolution_and_its_gradients_are_those_of_flax(size, stride, padding):
    x = normal(0, 2, 9, 12, 3)
    pads = "SAME" if padding == "same" else [((size - 1) // 2,) * 2] * 2
    ours = layers.Conv(5, size, stride, padding=padding)
    flax = nn.Conv(5, (size, size), (stride, stride), padding=pads)
    variables = flax.init(jax.random.key(0), x)
    y, pull = jax.vjp(ours.apply, variables, x)
    expected, expected_pull = jax.vjp(flax.apply, variables, x)
    gradient = normal(1, *y.shape)
    assert_close((y, pull(gradient)), (expected, expected_pull(gradient)))


@pytest.mark.parametrize("height, width", [(8, 8), (7, 5), (9, 12), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_depthwise_convolution_and_its_gradients_are_those_of_flax(height, width, size, stride, padding):
    x = normal(0, 2, height, width, 3)
    pads = "SAME" if padding == "same" else [((size - 1) // 2,) * 2] * 2
    ours = layers.DepthwiseConv(size, stride, padding)
    flax = nn.Conv(3, (size, size), (stride, stride), padding=pads, feature_group_count=3, use_bias=False)
    variables = flax.init(jax.random.key(0), x)
    y, pull = jax.vjp(ours.apply, variables, x)
    expected, expected_pull = jax.vjp(flax.apply, variables, x)
    gradient = normal(1, *y.shape)
    assert_close((y, pull(gradient)), (expected, expected_pull(gradient)))


def test_depthwise_gradient_of_a_large_batch_keeps_its_accuracy():
    """The kernel's gradient is a sum over 73,728 pixels."""
    x, kernel, gradient = normal(0, 32, 48, 48, 16), normal(1, 3, 3, 1, 16), normal(2, 32, 48, 48, 16)
    _, pull = jax.vjp(convolution.convolve_depthwise, x, kernel)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = [
        [(padded[:, i : i + 48, j : j + 48] * gradient).sum((0, 1, 2)) for j in range(3)] for i in range(3)
    ]
    assert_close(pull(gradient)[1][:, :, 0], np.array(expected))


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_in_bfloat16_rounds_only_its_results(stride):
    """Beside the same bfloat16 numbers convolved in float32; the sums of the gradient are over 32 faces."""
    x, kernel = normal(0, 32, 24, 24, 4), normal(1, 5, 5, 1, 4)
    low = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel)]
    y, pull = jax.vjp(lambda x, kernel: convolution.convolve_depthwise(x, kernel, stride), *low)
    gradient = jnp.asarray(normal(2, *y.shape), jnp.bfloat16)

    def direct(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )

    expected, expected_pull = jax.vjp(direct, *(a.astype(jnp.float32) for a in low))
    results = y, *pull(gradient)
    assert {result.dtype.name for result in results} == {"bfloat16"}
    # Half a unit in the last of eight digits is 0.4 %.
    assert_close(
        [result.astype(jnp.float32) for result in results],
        [expected, *expected_pull(gradient.astype(jnp.float32))],
        4e-3,
    )


def test_an_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="padding='valid'; there are: same, symmetric"):
        layers.Conv(4, stride=2, padding="valid").init(jax.random.key(0), normal(0, 1, 4, 4, 3))


@pytest.mark.parametrize("height, width", [(8, 8), (7, 5), (9, 12), (1, 2)])
def test_3x3_max_pool_and_its_gradient_are_those_of_flax(height, width):
    def theirs(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    assert_pools_alike(layers.max_pool_3x3, theirs, height, width)
