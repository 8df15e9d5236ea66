"""Batches of few sizes: the same numbers as an evaluation's, and few compilations."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax import weights_file
from fer_jax.data.dataset import read
from fer_jax.evaluation.metrics import calibration
from fer_jax.inference.classifier import Classifier, split_batches
from fer_jax.loaded_model import LoadedModel


@pytest.fixture
def compilations():
    """Counts what JAX compiles meanwhile."""
    seen = []

    def listen(event, duration, **more):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(more.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def changed(tiny_run, path, **facts):
    variables, old = weights_file.load_weights(tiny_run)
    weights_file.export_weights(path, variables, json.loads(json.dumps(old)) | facts)
    return LoadedModel(path)


def test_probabilities_are_those_of_an_evaluation(tiny_predictor, faces, expected):
    for count in (1, 3, 4, 8, 9, 28):
        found = tiny_predictor.classifier(faces[:count])
        np.testing.assert_allclose(found, expected[:count], rtol=1e-5)
        assert found.dtype == np.float64
    assert tiny_predictor.classifier(faces[:0]).shape == (0, 7)


def test_a_large_batch_in_parts_gives_the_same(tiny_model, faces, expected):
    found = Classifier(tiny_model, sizes=(128,))(np.tile(faces, (5, 1, 1, 1)))
    np.testing.assert_allclose(found, np.tile(expected, (5, 1)), rtol=1e-5)


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
        # Only what no smaller size could take is padded more.
        assert size in sizes and (filled >= min_fill * size or filled < sizes[0])


@pytest.mark.parametrize(("backend", "sizes"), [("cpu", [1, 1]), ("gpu", [4])])
def test_only_a_cpu_avoids_padding(tiny_model, faces, expected, monkeypatch, backend, sizes):
    network, used = Classifier(tiny_model, sizes=(1, 4)), []
    forward = network._forward
    monkeypatch.setattr(network, "_forward", lambda _, batch: used.append(len(batch)) or forward(_, batch))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    np.testing.assert_allclose(network(faces[:2]), expected[:2], rtol=1e-5)
    assert used == sizes


def test_each_size_is_compiled_once_and_by_the_warm_up(tiny_model, compilations):
    classifier = Classifier(tiny_model, sizes=(1, 4, 8))
    zeros = np.zeros((30, 48, 48, 1), np.uint8)
    compilations.clear()
    for count in (1, 1, 2, 3, 4, 3, 5, 8, 7, 9, 13, 20, 30, 1):
        assert len(classifier(zeros[:count])) == count
    assert len(compilations) == 3, compilations
    classifier = Classifier(tiny_model, sizes=(1, 4))
    classifier.warm_up()
    compilations.clear()
    classifier(zeros[:7])
    assert compilations == []


def test_the_checkpoints_temperature_is_applied(tiny_run, faces, expected, tmp_path):
    model = changed(tiny_run, tmp_path / "warm.safetensors", calibration={"temperature": 2.5})
    np.testing.assert_allclose(Classifier(model)(faces), calibration.rescale(expected, 2.5), rtol=1e-5)


def test_faces_are_no_sharper_than_in_training(tiny_run, tiny_data, tmp_path):
    # It was trained on faces of 24 pixels that were enlarged to the network's 48.
    model = changed(tiny_run, tmp_path / "small.safetensors", faces={"side": 24, "channels": 1})
    classifier = Classifier(model)
    assert (classifier.side, classifier.channels) == (24, 1)
    small = read.load(tiny_data, "validation", image_size=24).images
    np.testing.assert_allclose(classifier(small), model.predict(small, progress=False), rtol=1e-5)
    # If they were larger than the network's input, no more is taken than that.
    model = changed(tiny_run, tmp_path / "large.safetensors", faces={"side": 300, "channels": 1})
    assert Classifier(model).side == 48


def test_invalid_faces_weights_and_sizes_are_refused(tiny_run, tiny_model, tmp_path):
    for shape in ((2, 24, 24, 1), (2, 48, 48, 3), (48, 48, 1)):
        with pytest.raises(ValueError, match=r"expected uint8 \[N, \(48, 48, 1\)\]"):
            Classifier(tiny_model)(np.zeros(shape, np.uint8))
    for sizes in ((), (0, 1), (100,)):
        with pytest.raises(ValueError, match="batch sizes .*: expected 1 or more, above 64 multiples of it"):
            Classifier(tiny_model, sizes)
    variables, facts = weights_file.load_weights(tiny_run)
    variables["params"]["Dense_1"]["bias"][0] = np.nan
    weights_file.export_weights(tmp_path / "nan.safetensors", variables, facts)
    with pytest.raises(ValueError, match="outputs of .*nan.safetensors are not finite"):
        Classifier(LoadedModel(tmp_path / "nan.safetensors"))(np.zeros((1, 48, 48, 1), np.uint8))
