"""The programs in docs/exports.md, which know nothing of fer_jax, give a face its probabilities."""

import re
import shutil

import numpy as np
import pytest
from helpers import ROOT, needed

from fer_jax.inference.detection import assets
from fer_jax.inference.export import export, metadata
from fer_jax.inference.export.program import Program
from fer_jax.inference.media.inputs import SAMPLE
from fer_jax.inference.predictor import Predictor
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import find_weights

for name in ("ai_edge_litert", "onnx", "onnxruntime"):
    needed(name, "export")

NETWORK = "cnn_1m_64"  # which enlarges faces of 48 pixels to 64


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a photograph, the detector, and the exported network."""
    folder, program = tmp_path_factory.mktemp("place"), Program(LoadedModel(find_weights(NETWORK)))
    shutil.copyfile(SAMPLE, folder / "photo.jpg")
    shutil.copyfile(assets.YUNET, folder / "yunet.onnx")
    for kind in ("onnx", "tflite"):
        form, path = export.open_format(kind), folder / f"model.{kind}"
        form.write(program, path, "float32", None)
        form.annotate(path, metadata.describe(program, "float32", {}))
    return folder


def test_they_find_what_the_predictor_finds(place, monkeypatch, capsys):
    onnx, litert = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/exports.md").read_text(), re.S | re.M)
    (face,) = Predictor.load(NETWORK, batch_sizes=(1,))(SAMPLE)[0].faces
    monkeypatch.chdir(place)
    ours, other = {}, {}
    exec(onnx, ours)
    emotion, confidence = capsys.readouterr().out.split()
    assert emotion == face.emotion and float(confidence) == pytest.approx(face.confidence, abs=0.01)
    np.testing.assert_allclose(ours["probabilities"], face.probabilities, atol=0.01)
    exec(litert, other)
    np.testing.assert_allclose(other["classify"](ours["face"])[0], ours["probabilities"], atol=1e-4)
    assert other["metadata"]["photographs"] == ours["crops"]
