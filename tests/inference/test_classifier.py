"""Batches of few sizes: the same numbers as an evaluation gives, and few compilations."""

import json

import jax
import numpy as np
import pytest

from fer_jax import weights_file
from fer_jax.data.dataset import read
from fer_jax.evaluation.metrics import calibration
from fer_jax.inference.classifier import Classifier, divide
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
    return path


@pytest.mark.parametrize("count", (1, 3, 4, 8, 9, 28))
def test_probabilities_are_those_of_an_evaluation(count, tiny_run, tiny_data):
    images = read.load(tiny_data, "validation").images[:count]
    found = Classifier(LoadedModel(tiny_run), sizes=(1, 4, 8))(images)
    expected = LoadedModel(tiny_run).predict(images, progress=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float64


def test_a_large_batch_in_parts_gives_the_same(tiny_run, tiny_data):
    images = np.tile(read.load(tiny_data, "validation").images, (5, 1, 1, 1))
    found = Classifier(LoadedModel(tiny_run), sizes=(128,))(images)
    np.testing.assert_allclose(found, np.tile(found[:28], (5, 1)), rtol=1e-5)
    np.testing.assert_allclose(
        found[:28], LoadedModel(tiny_run).predict(images[:28], progress=False), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("count", "least_full", "sizes"),
    [
        (0, 0.75, []),
        (1, 0.75, [1]),
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
def test_faces_are_divided_into_batches_that_are_filled(count, least_full, sizes):
    found = list(divide(count, (1, 8, 64, 256), least_full))
    assert [size for _, size in found] == sizes
    covered = [i for part, _ in found for i in range(count)[part]]
    assert covered == list(range(count))
    # Where no size is small enough one is filled up.
    assert [size for _, size in divide(3, (4, 8), 1.0)] == [4]


def test_no_faces(tiny_run):
    assert Classifier(LoadedModel(tiny_run))(np.empty((0, 48, 48, 1), np.uint8)).shape == (0, 7)


def test_each_size_is_compiled_once(tiny_run, compilations):
    classifier = Classifier(LoadedModel(tiny_run), sizes=(1, 4, 8))
    compilations.clear()
    faces = np.zeros((30, 48, 48, 1), np.uint8)
    for count in (1, 1, 2, 3, 4, 3, 5, 8, 7, 9, 13, 20, 30, 1):
        assert len(classifier(faces[:count])) == count
    assert len(compilations) == 3, compilations


def test_nothing_is_compiled_after_the_warm_up(tiny_run, compilations):
    classifier = Classifier(LoadedModel(tiny_run), sizes=(1, 4))
    classifier.warm_up()
    compilations.clear()
    classifier(np.zeros((7, 48, 48, 1), np.uint8))
    assert compilations == []


def test_the_checkpoints_temperature_is_applied(tiny_run, tiny_data, tmp_path):
    path = changed(tiny_run, tmp_path / "warm.safetensors", calibration={"temperature": 2.5})
    images = read.load(tiny_data, "validation").images
    plain, warm = Classifier(LoadedModel(tiny_run))(images), Classifier(LoadedModel(path))(images)
    np.testing.assert_allclose(warm, calibration.rescale(plain, 2.5), rtol=1e-6)


def test_faces_are_no_sharper_than_in_training(tiny_run, tiny_data, tmp_path):
    # It was trained on faces of 24 pixels that were enlarged to the network's 48.
    path = changed(tiny_run, tmp_path / "small.safetensors", faces={"side": 24, "channels": 1})
    classifier = Classifier(LoadedModel(path))
    assert (classifier.side, classifier.channels) == (24, 1)
    faces = read.load(tiny_data, "validation", image_size=24).images
    np.testing.assert_allclose(classifier(faces), LoadedModel(path).predict(faces, progress=False), rtol=1e-5)
    # And where they were larger than the network's input there is no use in more than it takes.
    path = changed(tiny_run, tmp_path / "large.safetensors", faces={"side": 300, "channels": 1})
    assert Classifier(LoadedModel(path)).side == 48


@pytest.mark.parametrize("shape", [(2, 24, 24, 1), (2, 48, 48, 3), (48, 48, 1)])
def test_faces_of_another_shape_are_refused(shape, tiny_run):
    with pytest.raises(ValueError, match=r"expected uint8 \[N, \(48, 48, 1\)\]"):
        Classifier(LoadedModel(tiny_run))(np.zeros(shape, np.uint8))


def test_damaged_weights_are_noticed(tiny_run, tmp_path):
    variables, facts = weights_file.load_weights(tiny_run)
    variables["params"]["Dense_1"]["bias"][0] = np.nan
    weights_file.export_weights(tmp_path / "nan.safetensors", variables, facts)
    with pytest.raises(ValueError, match="outputs of .*nan.safetensors are not finite"):
        Classifier(LoadedModel(tmp_path / "nan.safetensors"))(np.zeros((1, 48, 48, 1), np.uint8))


@pytest.mark.parametrize("sizes", [(), (0, 1), (100,)])
def test_sizes_that_cannot_be_are_refused(sizes, tiny_run):
    with pytest.raises(ValueError, match="sizes of batches .*: expected 1 or more, above 64 multiples"):
        Classifier(LoadedModel(tiny_run), sizes)
