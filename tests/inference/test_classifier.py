"""Tests that every engine gives the same probabilities as an evaluation."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from fer_jax.data.dataset import read
from fer_jax.evaluation.metrics import calibration
from fer_jax.inference.classifier import Classifier
from fer_jax.inference.engines import graphs
from fer_jax.inference.export import UnsupportedError
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.loaded_model import LoadedModel

RTOL = 2e-5


def changed(tiny_run, path, **facts):
    variables, old = weights_file.load_weights(tiny_run)
    weights_file.export_weights(path, variables, json.loads(json.dumps(old)) | facts)
    return LoadedModel(path)


@pytest.fixture(params=["onnx", "jax"])
def engine(request):
    return request.param


def test_probabilities_are_those_of_an_evaluation(tiny_model, faces, expected, engine):
    classifier = Classifier(tiny_model, (1, 4, 8), engine)
    assert classifier.engine.name == engine
    for count in (1, 3, 4, 8, 9, 28):
        found = classifier(faces[:count])
        np.testing.assert_allclose(found, expected[:count], rtol=RTOL)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
        assert found.dtype == np.float64
    assert classifier(faces[:0]).shape == (0, 7)
    large = np.tile(faces, (5, 1, 1, 1))  # in several batches
    np.testing.assert_allclose(classifier(large), np.tile(expected, (5, 1)), rtol=RTOL)


def test_the_checkpoints_temperature_is_applied(tiny_run, faces, expected, tmp_path, engine):
    model = changed(
        tiny_run, tmp_path / "warm.safetensors", calibration={"temperature": 2.5, "split": "validation"}
    )
    found = Classifier(model, engine=engine)(faces)
    np.testing.assert_allclose(found, calibration.rescale(expected, 2.5), rtol=RTOL)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fill", ["reflect", "constant"])
def test_faces_are_no_sharper_than_in_training(tiny_run, tiny_data, tmp_path, engine, interpolation, fill):
    # A network trained on faces of 24 pixels, enlarged to its input of 48.
    _, metadata = weights_file.load_weights(tiny_run)
    preprocess = metadata["preprocess"] | {"interpolation": interpolation, "fill": fill}
    face = {"side": 24, "channels": 1}
    model = changed(tiny_run, tmp_path / "small.safetensors", faces=face, preprocess=preprocess)
    classifier = Classifier(model, engine=engine)
    assert (classifier.side, classifier.channels) == (24, 1)
    small = read.load(tiny_data, "validation", image_size=24).images
    np.testing.assert_allclose(classifier(small), model.predict(small, progress=False), rtol=RTOL)
    # Training faces larger than the input limit the crops to the input size.
    model = changed(tiny_run, tmp_path / "large.safetensors", faces={"side": 300, "channels": 1})
    assert Classifier(model, engine=engine).side == 48


def test_invalid_faces_weights_and_engines_are_refused(tiny_run, tiny_model, tmp_path, engine):
    for shape in ((2, 24, 24, 1), (2, 48, 48, 3), (48, 48, 1)):
        with pytest.raises(ValueError, match=r"expected uint8 \[N, \(48, 48, 1\)\]"):
            Classifier(tiny_model, engine=engine)(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="unknown engine 'tf'; there are: auto, onnx, jax"):
        Classifier(tiny_model, engine="tf")
    variables, facts = weights_file.load_weights(tiny_run)
    variables["params"]["Dense_1"]["bias"][0] = np.nan
    weights_file.export_weights(tmp_path / "nan.safetensors", variables, facts)
    with pytest.raises(ValueError, match="outputs of .*nan.safetensors are not finite"):
        Classifier(LoadedModel(tmp_path / "nan.safetensors"), engine=engine)(
            np.zeros((1, 48, 48, 1), np.uint8)
        )
    variables["params"]["Dense_1"]["bias"] = np.zeros(8, np.float32)
    weights_file.export_weights(tmp_path / "misfit.safetensors", variables, facts)
    with pytest.raises(ValueError, match="(?s)misfit.safetensors: .*Dense_1/bias"):
        Classifier(LoadedModel(tmp_path / "misfit.safetensors"), engine=engine)


@pytest.mark.parametrize(("backend", "chosen"), [("gpu", "jax"), ("cpu", "onnx")])
def test_an_accelerator_of_jax_is_used(tiny_model, monkeypatch, backend, chosen):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "jax_plugins")
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert Classifier(tiny_model, (1,)).engine.name == chosen
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert Classifier(tiny_model, (1,)).engine.name == "onnx"


def test_a_network_that_onnx_cannot_express_is_computed_by_jax(tiny_model, monkeypatch):
    def refuse(trained):
        raise UnsupportedError("the network needs the operation fft")

    monkeypatch.setattr(graphs, "find", lambda trained: None)
    monkeypatch.setattr(graphs, "build", refuse)
    assert Classifier(tiny_model, (1,)).engine.name == "jax"
    with pytest.raises(UnsupportedError, match="operation fft"):
        Classifier(tiny_model, (1,), "onnx")
