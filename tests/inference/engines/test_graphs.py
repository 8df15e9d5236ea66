"""Tests graphs without weights: the package's graphs match its networks, and others are built once."""

import pathlib
import subprocess
import sys

import numpy as np
import onnx
import pytest
from helpers import environment, run_python

from fer_jax.inference.classifier import Classifier
from fer_jax.inference.engines import graphs
from fer_jax.inference.engines.jax_engine import JaxEngine
from fer_jax.inference.engines.onnx_engine import OnnxEngine
from fer_jax.pretrained import download
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import BUNDLED, find_weights

PHOTO = pathlib.Path(graphs.__file__).parents[1] / "media" / "grace_hopper.jpg"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", BUNDLED)
def test_the_package_has_the_graphs_of_its_networks(name):
    trained = LoadedModel(find_weights(name))
    (path,) = graphs.SHIPPED.glob(f"{name}-*.onnx")
    assert path.stem == f"{name}-{graphs.key(trained)}", "run scripts/build_graphs.py"
    assert graphs.find(trained) == path.read_bytes()
    stored, built = onnx.load(path, load_external_data=False), onnx.load_from_string(graphs.convert(trained))
    for model in (stored, built):
        model.producer_version = ""
    assert stored == built, "run scripts/build_graphs.py"


def test_a_graph_is_built_once_and_shared_by_networks_of_one_architecture(tiny_run, tiny_model, cache, faces):
    assert graphs.find(tiny_model) is None
    graph = graphs.build(tiny_model)
    assert graphs.find(tiny_model) == graph and len(list(cache.rglob("*.onnx"))) == 1
    other = LoadedModel(tiny_run)
    other.variables["params"]["Dense_1"]["bias"] += np.arange(7, dtype=np.float32)
    assert graphs.find(other) == graph
    found, expected = OnnxEngine(other, graph)(faces), JaxEngine(other, (28,))(faces)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found - OnnxEngine(tiny_model, graph)(faces)).max() > 0.1
    for changed in (
        {"calibration": {"temperature": 2.0, "split": "validation"}},
        {"faces": {"side": 24, "channels": 1}},
    ):
        other.metadata |= changed
        assert graphs.find(other) is None


def test_a_damaged_graph_in_the_cache_is_built_again(tiny_model, cache, faces, expected):
    graph = graphs.build(tiny_model)
    (path,) = cache.rglob("*.onnx")
    for damaged in (b"", graph[:-100], graph.replace(b"Relu", b"Tanh", 1), b"no graph"):
        path.write_bytes(damaged)
        assert graphs.find(tiny_model) is None
        probs = Classifier(tiny_model, engine="onnx")(faces)
        np.testing.assert_allclose(probs, expected, rtol=2e-5)
        assert path.read_bytes() == graph


def test_a_cache_that_cannot_be_written_costs_only_time(tiny_model, cache, caplog):
    cache.write_text("a file where a folder should be")
    assert OnnxEngine(tiny_model, graphs.build(tiny_model))
    assert "cannot be cached" in caplog.text and download.CACHE_VARIABLE in caplog.text


def test_a_graph_that_differs_is_not_kept(tiny_run, tiny_model, cache, monkeypatch):
    other = LoadedModel(tiny_run)
    other.metadata |= {"calibration": {"temperature": 1.001}}
    wrong = graphs.convert(other)
    monkeypatch.setattr(graphs, "convert", lambda trained: wrong)
    with pytest.raises(graphs.MismatchError, match="differs from the network by up to"):
        graphs.build(tiny_model)
    assert not list(cache.rglob("*.onnx"))


def test_predicting_imports_neither_jax_nor_tensorflow_nor_matplotlib(tmp_path):
    names = {"jax", "flax", "tensorflow", "matplotlib", "scipy", "onnx", "av", "requests"}
    code = f"""
import sys
from fer_jax import Predictor
(face,) = Predictor.load()({str(PHOTO)!r})[0].faces
from fer_jax.commands import predict
assert predict.main([{str(PHOTO)!r}, "--out", {str(tmp_path / "faces.csv")!r}]) == 0
assert not {names!r} & sys.modules.keys(), {names!r} & sys.modules.keys()
print(face.emotion)
"""
    assert "neutral" in run_python("-c", code).stdout


def test_predicting_writes_nothing_into_the_home_directory(tmp_path):
    """ONNX Runtime's telemetry would write a device ID and events."""
    variables = environment(HOME=str(tmp_path))
    for inherited in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        variables.pop(inherited, None)
    code = f"from fer_jax import Predictor; print(Predictor.load()({str(PHOTO)!r})[0].faces[0].emotion)"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert "neutral" in done.stdout and not list(tmp_path.rglob("*"))
