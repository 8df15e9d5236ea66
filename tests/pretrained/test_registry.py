"""Tests the bundled networks: small files, correct model cards, and usable for evaluation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from fer_jax import models
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import model_results
from fer_jax.evaluation.metrics import calibration
from fer_jax.inference.classifier import Classifier
from fer_jax.models.ops.portable import portable
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import BUNDLED, DEFAULT, find_weights, name_of
from fer_jax.pretrained.weights_file import load_weights

SHIPPED = sorted((ROOT / "fer_jax" / "pretrained").glob("*.safetensors"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_checkpoint_is_what_its_card_says(path, caplog):
    variables, facts = load_weights(path)
    assert not caplog.messages  # it has a digest
    assert path.stat().st_size <= 10_000_000
    card = path.with_suffix(".md").read_text()
    evaluation = facts["evaluation"]
    assert evaluation["split"] == "validation"
    assert facts["selection"] == (None if "| selected on | nothing:" in card else evaluation)
    start = facts["config"]["init_from"]
    assert start == "" or f"from the weights of `{start}`" in card
    (accuracy,) = re.findall(r"\| PublicTest accuracy, single view \| ([\d.]+) %", card)
    assert accuracy == f"{100 * evaluation['value']:.2f}"
    assert f"seed {facts['seed']}" in card
    assert f"{facts['parameters'] / 1e6:.1f} M parameters" in card
    assert ("EMA" in card) == facts["ema"]


def test_their_files_are_known_by_their_names_however_they_are_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(find_weights("cnn_64"))
    (tmp_path / "link.safetensors").symlink_to(path)
    (tmp_path / path.name).write_bytes(b"other weights")
    for spelled in (path, str(path), os.path.relpath(path), "link.safetensors"):
        assert name_of(spelled) == "cnn_64"
    for other in (path.name, "cnn_64", tmp_path, "the mean of cnn_250k, cnn_64"):
        assert name_of(other) is None


def test_the_readme_lists_them_and_the_default_is_the_best_without_near_duplicates():
    row = r"^\| `(\w+)` \| (\d+) x \d+ \| ([\d.]+) \(.*?\) \| ([\d.]+) \(.*\| ([\d.]+) M \|"
    rows = re.findall(row, (ROOT / "README.md").read_text(), re.MULTILINE)
    leak_free = {name: float(accuracy) for name, _, _, accuracy, _ in rows}
    assert sorted(BUNDLED, key=leak_free.get, reverse=True) == [DEFAULT, *BUNDLED[1:]]
    for name, side, accuracy, _, parameters in rows:
        _, facts = load_weights(find_weights(name))
        assert parameters == f"{facts['parameters'] / 1e6:.2f}"
        assert side == str(facts["preprocess"]["image_size"])
        assert accuracy == f"{100 * facts['evaluation']['value']:.2f}"


@pytest.fixture(scope="module")
def public(shared_dir, tmp_path_factory):
    """Returns every tenth face of PublicTest, uint8 [359, 48, 48], and the labels [359]."""
    folder = tmp_path_factory.mktemp("npz")
    unpack = [sys.executable, shared_dir / "fer2013" / "unpack.py", "npz", folder]
    subprocess.run(unpack, check=True, capture_output=True)
    data = np.load(next(folder.glob("*.npz")), allow_pickle=False)
    chosen = np.flatnonzero(data["usage"] == 1)[::10]
    return data["images"][chosen], data["emotion"][chosen]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_checkpoint_gives_what_is_stored(path, public):
    # Applies the network directly to the faces, enlarged by Pillow for networks with larger inputs.
    folder = ROOT / "results" / path.stem.removesuffix("_fer2013")
    stored = predictions_file.read(folder / model_results.STORED)
    variables, facts = load_weights(path)
    assert stored.labels.size == 3589
    stored_accuracy = np.mean(np.argmax(stored.probs, 1) == stored.labels)
    assert stored_accuracy == pytest.approx(facts["evaluation"]["value"], abs=1e-9)
    images, labels = public
    assert np.array_equal(stored.labels[::10], labels)
    model = models.create(facts["model"]["name"], **facts["model"]["kwargs"])
    side = facts["preprocess"]["image_size"]
    faces = [Image.fromarray(face.astype(np.float32)) for face in images]
    resampling = Image.Resampling[facts["preprocess"]["interpolation"].upper()]
    faces = [face.resize((side, side), resampling) for face in faces]
    x = np.repeat(np.stack(faces)[..., None] / 255, facts["preprocess"]["channels"], axis=-1)
    x = ((x - facts["preprocess"]["mean"]) / facts["preprocess"]["std"]).astype(np.float32)
    with portable():  # compiles quickly
        probs = jax.nn.softmax(jax.jit(model.apply)(variables, x))
    off = np.abs(probs - stored.probs[::10])  # Pillow treats the outer pixels differently
    assert np.mean(off) < 0.001 and np.max(off) < 0.05
    answers = np.argmax(probs, 1) == np.argmax(stored.probs[::10], 1)
    assert np.mean(answers) > 0.99  # near ties may flip


@pytest.mark.parametrize("name", BUNDLED)
def test_onnx_runtime_gives_the_stored_probabilities_and_answers(name, public):
    trained = LoadedModel(find_weights(name))
    stored = predictions_file.read(ROOT / "results" / name / model_results.STORED).probs[::10]
    found = Classifier(trained, engine="onnx")(public[0][..., None])
    expected = calibration.rescale(stored, trained.temperature)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
