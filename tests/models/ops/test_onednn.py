"""Tests oneDNN's calls against NumPy and lax, and the conditions for using them."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.ops import onednn


@pytest.fixture
def usable():
    if not onednn.is_usable("float32"):
        pytest.skip(
            "needs a single CPU, Linux on x86-64 and a jaxlib of onednn.TESTED_JAXLIB: oneDNN's calls"
        )


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matrix_product_is_that_of_numpy(usable, transpose_a, transpose_b):
    a, b = normal(0, 33, 70), normal(1, 70, 18)
    y = onednn.matmul(a.T if transpose_a else a, b.T if transpose_b else b, transpose_a, transpose_b)
    np.testing.assert_allclose(y, a.astype(np.float64) @ b, atol=1e-4)


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
    """Its convolutions would crash or hang."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert not onednn._is_in_jaxlib.__wrapped__()


def test_other_types_are_not_for_it(monkeypatch):
    assert not onednn.is_usable("float16") and not onednn.is_usable("float64")
    monkeypatch.setattr(onednn, "_multiplies_bfloat16", lambda: False)
    assert not onednn.is_usable(jnp.bfloat16)


def test_an_untested_jaxlib_is_not_called_and_the_reason_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(onednn, "TESTED_JAXLIB", ("0.0.1",))
    monkeypatch.setattr(onednn.platform, "system", lambda: "Linux")
    monkeypatch.setattr(onednn.platform, "machine", lambda: "x86_64")
    with caplog.at_level(logging.WARNING):
        assert not onednn._is_in_jaxlib.__wrapped__()
    assert "several times slower" in caplog.text and "0.0.1" in caplog.text
    caplog.clear()
    monkeypatch.setattr(onednn.jax, "default_backend", lambda: "gpu")
    assert not onednn._is_in_jaxlib.__wrapped__() and not caplog.text
