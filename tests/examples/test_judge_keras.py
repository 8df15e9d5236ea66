"""Tests examples/judge_keras.py with a Keras network of known outputs."""

import os

import numpy as np
import pytest
from helpers import needed, program

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = needed("keras", "test")

from fer_jax.data.dataset import read  # noqa: E402
from fer_jax.data.emotions import EMOTIONS  # noqa: E402
from fer_jax.evaluation.compare import model_results  # noqa: E402

ALPHABETICAL = [*sorted(EMOTIONS), "contempt"]


@pytest.fixture(scope="module")
def judge():
    return program("examples/judge_keras.py")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """Returns a network for color faces with eight logits, a linear map of the mean brightness."""
    path = tmp_path_factory.mktemp("keras") / "tiny.keras"
    inputs = keras.Input((48, 48, 3))
    dense = keras.layers.Dense(8)
    outputs = dense(keras.layers.GlobalAveragePooling2D()(inputs))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    dense.set_weights(weights)
    model.save(path)
    return path, weights


def test_the_predictions_are_the_models(judge, model_file, tiny_data, tmp_path, capsys):
    path, (kernel, bias) = model_file
    flags = ["--data", str(tiny_data), "--out", str(tmp_path / "k.csv"), "--scale", "sign", "--logits"]
    assert judge.main(["--model", str(path), *flags, "--classes", *ALPHABETICAL]) == 0
    faces = read.load(tiny_data, "validation")
    brightness = (faces.images / 127.5 - 1).mean(axis=(1, 2)) @ np.ones((1, 3))
    odds = np.exp(brightness @ kernel + bias)[:, [ALPHABETICAL.index(name) for name in EMOTIONS]]
    expected = odds / odds.sum(axis=1, keepdims=True)  # without contempt
    (found,) = model_results.load([tmp_path / "k.csv"])
    np.testing.assert_allclose(found.predictions.probs, expected, atol=1e-5)
    assert found.predictions.ids == list(faces.ids)
    right = np.mean(expected.argmax(1) == faces.labels)
    assert f"28 images of validation, accuracy {100 * right:.2f} %" in capsys.readouterr().out


def test_complaints(judge, model_file, tiny_data, tmp_path, capsys):
    flags = ["--model", str(model_file[0]), "--data", str(tiny_data), "--out", str(tmp_path / "k.csv")]
    assert judge.main([*flags, "--logits"]) == 2
    assert "the model has 8 outputs, but --classes has 7 names" in capsys.readouterr().err
    assert judge.main([*flags, "--classes", "happy", "sad"]) == 2
    assert "--classes lacks angry, disgust, fear" in capsys.readouterr().err
    assert judge.main([*flags, "--classes", *ALPHABETICAL]) == 2
    assert "is not a probability distribution" in capsys.readouterr().err
