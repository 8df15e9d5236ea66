"""oneDNN's calls against NumPy and lax, and the convolutions where there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.ops import convolution, onednn


@pytest.fixture
def usable():
    if not onednn.is_usable(jnp.zeros(1)):
        pytest.skip(
            "needs a single CPU, Linux on x86-64 and a jaxlib of onednn.TESTED_JAXLIB: oneDNN's calls"
        )


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def lax_convolution(x, kernel, pads, strides, groups=1):
    axes = "DHW"[-len(pads) :]
    numbers = f"N{axes}C", f"{axes}IO", f"N{axes}C"
    return jax.lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=numbers, feature_group_count=groups
    )


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matrix_product_is_that_of_numpy(usable, transpose_a, transpose_b):
    a, b = normal(0, 33, 70), normal(1, 70, 18)
    y = onednn.matmul(a.T if transpose_a else a, b.T if transpose_b else b, transpose_a, transpose_b)
    np.testing.assert_allclose(y, a.astype(np.float64) @ b, atol=1e-4)


@pytest.mark.parametrize(
    "x, kernel, pads, strides, groups",
    [
        ((2, 9, 7, 5), (3, 3, 5, 6), ((1, 1), (0, 2)), (1, 1), 1),
        ((2, 9, 7, 5), (5, 3, 5, 6), ((2, 1), (1, 1)), (2, 1), 1),
        ((2, 8, 7, 32), (3, 3, 1, 32), ((1, 1), (1, 1)), (2, 2), 32),
        ((1, 4, 8, 7, 20), (4, 8, 7, 1, 20), ((0, 0), (1, 1), (1, 1)), (1, 1, 1), 20),
    ],
)
def test_convolution_is_that_of_lax(usable, x, kernel, pads, strides, groups):
    x, kernel = normal(0, *x), normal(1, *kernel)
    y = jax.jit(lambda x, k: onednn.convolve(x, k, pads, strides, groups))(x, kernel)
    np.testing.assert_allclose(y, lax_convolution(x, kernel, pads, strides, groups), atol=2e-4)


def test_convolution_maps_over_an_axis(usable):
    x, kernel = normal(0, 3, 2, 6, 6, 4), normal(1, 3, 3, 4, 5)
    y = jax.vmap(convolution.convolve, (0, None))(x, kernel)
    expected = [lax_convolution(images, kernel, ((1, 1), (1, 1)), (1, 1)) for images in x]
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize(
    "shape, size", [((32, 24, 20, 8), 3), ((40, 6, 6, 1), 3), ((16, 9, 7, 24), 5), ((8, 6, 6, 8), 1)]
)
def test_convolution_in_bfloat16_rounds_only_its_results(shape, size):
    """Beside the same bfloat16 numbers convolved in float32."""
    if not onednn.is_usable(jnp.zeros(1, jnp.bfloat16)):
        pytest.skip("needs a processor with instructions for bfloat16 (AVX-512 BF16 or AMX)")
    low = [jnp.asarray(a, jnp.bfloat16) for a in (normal(0, *shape), normal(1, size, size, shape[-1], 12))]
    gradient = jnp.asarray(normal(2, *shape[:3], 12), jnp.bfloat16)
    y, pull = jax.vjp(convolution.convolve, *low)
    pads = [convolution.padding_of(n, size, 1, "same") for n in shape[1:3]]
    expected, expected_pull = jax.vjp(
        lambda x, k: lax_convolution(x, k, pads, (1, 1)), *(a.astype(jnp.float32) for a in low)
    )
    pairs = zip((y, *pull(gradient)), (expected, *expected_pull(gradient.astype(jnp.float32))), strict=True)
    for result, reference in pairs:
        assert result.dtype == jnp.bfloat16
        # Half a unit in the last of eight digits is 0.4 %.
        np.testing.assert_allclose(
            result.astype(jnp.float32), reference, rtol=4e-3, atol=4e-3 * np.abs(reference).max()
        )


def test_other_types_are_not_for_it(monkeypatch):
    assert not onednn.is_usable(jnp.zeros(1), jnp.zeros(1, jnp.float16))
    assert not onednn.is_usable(jnp.zeros(1), jnp.zeros(1, jnp.bfloat16))
    monkeypatch.setattr(onednn, "_multiplies_bfloat16", lambda: False)
    assert not onednn.is_usable(jnp.zeros(1, jnp.bfloat16))


@pytest.mark.parametrize(
    ("name", "limit", "able"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX2", False),
        ("DNNL_MAX_CPU_ISA", "avx512_core", False),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", True),
        ("ONEDNN_MAX_CPU_ISA", "", True),
    ],
)
def test_bfloat16_is_not_for_a_onednn_that_is_kept_from_its_instructions(name, limit, able, monkeypatch):
    """It would end the process."""
    monkeypatch.setattr(onednn.pathlib.Path, "exists", lambda self: True)
    monkeypatch.setattr(onednn.pathlib.Path, "read_text", lambda self: "flags : avx2 avx512_bf16")
    for known in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, limit)
    assert onednn._multiplies_bfloat16.__wrapped__() is able


def test_onednn_is_not_used_with_sse_alone(monkeypatch):
    """Its convolutions would crash or never end."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert not onednn._is_in_jaxlib.__wrapped__()


def test_a_jaxlib_that_is_not_known_is_left_alone(monkeypatch):
    monkeypatch.setattr(onednn, "TESTED_JAXLIB", ())
    onednn._is_in_jaxlib.cache_clear()
    try:
        assert not onednn.is_usable(jnp.zeros(1))
    finally:
        onednn._is_in_jaxlib.cache_clear()


@pytest.mark.parametrize("size, stride", [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_convolutions_without_it_are_the_same(monkeypatch, size, stride):
    x, dense, depthwise = normal(0, 2, 9, 8, 4), normal(1, size, size, 4, 6), normal(2, size, size, 1, 4)

    monkeypatch.setattr(onednn, "is_usable", lambda *arrays: False)
    pads = [convolution.padding_of(n, size, stride, "same") for n in x.shape[1:3]]
    expected = lax_convolution(x, dense, pads, (stride, stride))
    np.testing.assert_allclose(convolution.convolve(x, dense, stride), expected, atol=1e-4)
    expected = lax_convolution(x, depthwise, pads, (stride, stride), groups=4)
    np.testing.assert_allclose(convolution.convolve_depthwise(x, depthwise, stride), expected, atol=1e-4)
