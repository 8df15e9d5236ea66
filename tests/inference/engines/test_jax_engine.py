"""Tests that batches have few sizes and need few compilations."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.inference.engines.jax_engine import JaxEngine, split_batches


@pytest.fixture
def compilations():
    """Counts JAX's compilations within the context."""
    seen = []

    def listen(event, duration, **more):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(more.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("count", "min_fill", "sizes"),
    [
        (5, 0.75, [1] * 5),
        (6, 0.75, [8]),
        (47, 0.75, [8] * 6),
        (48, 0.75, [64]),
        (100, 0.75, [64, 8, 8, 8, 8, 1, 1, 1, 1]),
        (300, 0.75, [256, 8, 8, 8, 8, 8, 1, 1, 1, 1]),
        (300, 0.0, [256, 64]),
        (2, 0.0, [8]),
    ],
)
def test_sizes_of_batches(count, min_fill, sizes):
    assert [size for _, size in split_batches(count, (1, 8, 64, 256), min_fill)] == sizes


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 600), st.sets(st.integers(1, 300), min_size=1), st.floats(0, 1))
def test_batches_cover_all_faces_in_order_and_are_filled(count, sizes, min_fill):
    sizes = sorted(sizes)
    batches = list(split_batches(count, sizes, min_fill))
    assert [i for part, _ in batches for i in range(count)[part]] == list(range(count))
    for part, size in batches:
        filled = len(range(count)[part])
        # A batch is filled less only if no smaller size exists.
        assert size in sizes and (filled >= min_fill * size or filled < sizes[0])


@pytest.mark.parametrize(("backend", "sizes"), [("cpu", [1, 1]), ("gpu", [4])])
def test_only_a_cpu_avoids_padding(tiny_model, faces, expected, monkeypatch, backend, sizes):
    network, used = JaxEngine(tiny_model, (1, 4)), []
    forward = network._forward
    monkeypatch.setattr(network, "_forward", lambda _, batch: used.append(len(batch)) or forward(_, batch))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    np.testing.assert_allclose(network(faces[:2]), expected[:2], rtol=1e-5)
    assert used == sizes


def test_each_size_is_compiled_once_and_by_the_warm_up(tiny_model, compilations):
    engine = JaxEngine(tiny_model, (1, 4, 8))
    zeros = np.zeros((30, 48, 48, 1), np.uint8)
    compilations.clear()
    for count in (1, 1, 2, 3, 4, 3, 5, 8, 7, 9, 13, 20, 30, 1):
        assert len(engine(zeros[:count])) == count
    assert len(compilations) == 3, compilations
    engine = JaxEngine(tiny_model, (1, 4))
    engine.warm_up()
    compilations.clear()
    engine(zeros[:7])
    assert compilations == []


def test_a_large_batch_in_parts_gives_the_same(tiny_model, faces, expected):
    found = JaxEngine(tiny_model, (128,))(np.tile(faces, (5, 1, 1, 1)))
    np.testing.assert_allclose(found, np.tile(expected, (5, 1)), rtol=1e-5)


def test_invalid_sizes_are_refused(tiny_model):
    for sizes in ((), (0, 1), (100,)):
        with pytest.raises(
            ValueError, match="batch sizes .*: expected 1 or more and, above 64, multiples of it"
        ):
            JaxEngine(tiny_model, sizes)
