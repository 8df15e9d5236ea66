"""Fixtures of the tests of inference."""

import pathlib

import numpy as np
import pytest

from fer_jax.data.dataset import read
from fer_jax.inference.classifier import Classifier
from fer_jax.inference.detection.detectors import FullImage
from fer_jax.inference.predictor import Predictor
from fer_jax.pretrained.loaded_model import LoadedModel


@pytest.fixture(scope="session")
def photos(shared_dir) -> pathlib.Path:
    """The folder with real photos."""
    return shared_dir / "assets" / "photos"


@pytest.fixture(scope="session")
def tiny_model(tiny_run) -> LoadedModel:
    """The tiny network."""
    return LoadedModel(tiny_run)


@pytest.fixture(scope="session")
def tiny_predictor(tiny_model) -> Predictor:
    """The tiny network, each image a face, in batches of 1, 4 and 8."""
    return Predictor(Classifier(tiny_model, (1, 4, 8)), FullImage())


@pytest.fixture(scope="session")
def faces(tiny_data) -> np.ndarray:
    """28 faces, uint8 [N, 48, 48, 1]."""
    return read.load(tiny_data, "validation").images


@pytest.fixture(scope="session")
def expected(tiny_model, faces) -> np.ndarray:
    """Their probabilities by an evaluation, float64 [N, 7]."""
    return tiny_model.predict(faces, progress=False)
