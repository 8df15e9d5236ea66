"""Tests that fer-jax calibrate stores the temperature with the lowest loss and changes nothing else."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from helpers import script
from sklearn import metrics

from fer_jax.data.dataset import read
from fer_jax.evaluation.metrics import calibration
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.weights_file import load_weights

calibrate = script("calibrate")


@pytest.fixture
def weights(tiny_run, tmp_path):
    return pathlib.Path(shutil.copy(tiny_run / "best.safetensors", tmp_path / "mine.safetensors"))


def test_the_temperature_of_the_least_loss_is_kept(weights, tiny_data, capsys):
    before, metadata = load_weights(weights)
    assert calibrate.main(["--checkpoint", str(weights), "--data", str(tiny_data)]) == 0
    after, new = load_weights(weights)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    kept = new.pop("calibration")
    assert new == metadata

    faces = read.load(tiny_data, "validation")
    probs = LoadedModel(weights).predict(faces.images, progress=False)
    expected = calibration.calibrate(probs, faces.labels)
    assert {name: kept[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert kept["loss_before"] == pytest.approx(metrics.log_loss(faces.labels, probs, labels=range(7)))
    assert kept["split"] == "validation"
    assert f"temperature {kept['temperature']:.3f}" in capsys.readouterr().out


def test_the_packages_own_weights_stay_as_they_are(weights, tiny_data, bundle, capsys):
    """Bundled weights are rejected, whether given by name or by path."""
    bundle("cnn_250k", weights)
    whole = weights.read_bytes()
    for spelled in (
        "cnn_250k",
        str(weights),
        str(weights.parent / ".." / weights.parent.name / weights.name),
    ):
        assert calibrate.main(["--checkpoint", spelled, "--data", str(tiny_data)]) == 2
        assert "is bundled and already calibrated" in capsys.readouterr().err
    assert weights.read_bytes() == whole


@pytest.mark.parametrize(
    ("split", "message"), [("train", "was trained on train"), ("test", "only for the final evaluation")]
)
def test_refuses_splits_that_say_nothing_or_too_much(split, message, weights, tiny_data, capsys):
    whole = weights.read_bytes()
    assert calibrate.main(["--checkpoint", str(weights), "--data", str(tiny_data), "--split", split]) == 2
    assert message in capsys.readouterr().err
    assert weights.read_bytes() == whole
