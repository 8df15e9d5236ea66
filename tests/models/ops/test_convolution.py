"""Tests all CPU implementations of convolutions and their gradients against `lax`."""

import contextlib
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.models.ops import convolution, onednn, winograd

SIDES, CHANNELS = st.integers(1, 12), st.integers(1, 4)
HOW = st.fixed_dictionaries(
    {"stride": st.sampled_from((1, 2)), "padding": st.sampled_from(("same", "symmetric"))}
)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def of_lax(x, kernel, stride=1, padding="same"):
    pads = "SAME" if padding == "same" else [((kernel.shape[0] - 1) // 2,) * 2] * 2
    how = {
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        "feature_group_count": x.shape[3] // kernel.shape[2],
    }
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, **how)


def with_gradients(function, x, kernel):
    """Returns the result, and the gradients for a fixed output gradient, all as float32."""

    @jax.jit
    def run(x, kernel):
        y, pull = jax.vjp(function, x, kernel)
        gradient = jnp.asarray(normal(2, *y.shape), y.dtype)
        return [a.astype(jnp.float32) for a in (y, *pull(gradient))]

    return run(x, kernel)


def assert_close(actual, expected, tolerance=1e-5):
    """Compares relative to the largest expected value, because rounding errors come from long sums."""
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max() + 1e-12)


@pytest.mark.parametrize("usable", [True, False])
@pytest.mark.parametrize("depthwise", [False, True])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(SIDES, SIDES, CHANNELS, CHANNELS, st.sampled_from((1, 3, 5, 7)), HOW)
def test_convolutions_are_those_of_lax(depthwise, usable, height, width, inputs, outputs, size, how):
    x = normal(0, 2, height, width, inputs)
    kernel = normal(1, size, size, *((1, inputs) if depthwise else (inputs, outputs)))
    with contextlib.nullcontext() if usable else mock.patch.object(onednn, "is_usable", lambda dtype: False):
        found = with_gradients(functools.partial(convolution.convolve, **how), x, kernel)
    assert_close(found, with_gradients(functools.partial(of_lax, **how), x, kernel))


@settings(max_examples=4, deadline=None, derandomize=True)
@given(height=SIDES, width=SIDES, inputs=CHANNELS, outputs=CHANNELS)
def test_winograds_algorithm_gives_the_convolution_of_lax(height, width, inputs, outputs):
    x, kernel = normal(0, 2, height, width, inputs), normal(1, 3, 3, inputs, outputs)
    y, *gradients = with_gradients(of_lax, x, kernel)
    found = jax.jit(winograd.gradients)(x, kernel, normal(2, *y.shape))
    assert_close((jax.jit(winograd.convolve)(x, kernel), *found), (y, *gradients))


def test_many_tiles_and_channels_are_convolved_by_winograds_algorithm():
    x, kernel = normal(0, 4, 14, 16, 40), normal(1, 3, 3, 40, 32)
    assert winograd.is_faster(x, kernel)
    assert not winograd.is_faster(x[:2], kernel) and not winograd.is_faster(x[..., :31], kernel[:, :, :31])
    with mock.patch.object(winograd, "convolve", wraps=winograd.convolve) as called:
        found = with_gradients(convolution.convolve, x, kernel)
    assert called.called
    assert_close(found, with_gradients(of_lax, x, kernel))


def test_convolutions_map_over_an_axis():
    x, kernel = normal(0, 3, 2, 6, 6, 4), normal(1, 3, 3, 4, 5)
    y = jax.vmap(convolution.convolve, (0, None))(x, kernel)
    assert_close(y, [of_lax(images, kernel) for images in x])


def test_depthwise_gradient_of_a_large_batch_keeps_its_accuracy():
    """The kernel's gradient is a sum over 73,728 pixels."""
    x, kernel, gradient = normal(0, 32, 48, 48, 16), normal(1, 3, 3, 1, 16), normal(2, 32, 48, 48, 16)
    _, pull = jax.vjp(convolution.convolve, x, kernel)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = [(i, j) for i in range(3) for j in range(3)]
    expected = [(padded[:, i : i + 48, j : j + 48] * gradient).sum((0, 1, 2)) for i, j in places]
    assert_close([pull(gradient)[1][:, :, 0].reshape(9, 16)], [np.array(expected)])


BFLOAT16 = [  # dense; the kernel's gradient over 32 faces; 1x1; depthwise, always with float32 sums
    ((32, 24, 20, 8), (3, 3, 8, 12), 1),
    ((40, 6, 6, 1), (3, 3, 1, 12), 1),
    ((8, 6, 6, 8), (1, 1, 8, 12), 1),
    ((32, 24, 24, 4), (5, 5, 1, 4), 1),
    ((32, 24, 24, 4), (5, 5, 1, 4), 2),
]


@pytest.mark.parametrize(("shape", "kernel", "stride"), BFLOAT16)
def test_convolution_in_bfloat16_rounds_only_its_results(shape, kernel, stride):
    """The reference convolves the same bfloat16 values in float32."""
    if kernel[2] == shape[3] and not onednn.is_usable(jnp.bfloat16):
        pytest.skip("needs a processor with instructions for bfloat16 (AVX-512 BF16 or AMX)")
    low = [jnp.asarray(a, jnp.bfloat16) for a in (normal(0, *shape), normal(1, *kernel))]
    ours, theirs = (functools.partial(function, stride=stride) for function in (convolution.convolve, of_lax))
    y, pull = jax.vjp(ours, *low)
    expected, expected_pull = jax.vjp(theirs, *(a.astype(jnp.float32) for a in low))
    gradient = jnp.asarray(normal(2, *y.shape), jnp.bfloat16)
    results = y, *pull(gradient)
    assert {result.dtype.name for result in results} == {"bfloat16"}
    # Half a unit in the last of eight bits is 0.4 %.
    wanted = expected, *expected_pull(gradient.astype(jnp.float32))
    assert_close([result.astype(jnp.float32) for result in results], wanted, 4e-3)


def test_any_cpu_convolves_bfloat16():
    x, kernel = (a.astype(jnp.bfloat16) for a in (normal(0, 2, 6, 6, 32), normal(1, 3, 3, 32, 32)))
    y = convolution.convolve(x, kernel)
    assert y.dtype == jnp.bfloat16
    assert_close([y.astype(jnp.float32)], [of_lax(*(a.astype(np.float32) for a in (x, kernel)))], 2e-2)


def test_an_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="padding='valid': expected same or symmetric"):
        convolution.convolve(normal(0, 1, 4, 4, 3), normal(1, 3, 3, 3, 4), 2, "valid")
