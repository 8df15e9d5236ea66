"""Fixtures for tests of inference."""

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
    """Returns the folder with real photos."""
    return shared_dir / "assets" / "photos"


@pytest.fixture(scope="session")
def tiny_model(tiny_run) -> LoadedModel:
    """Returns the tiny network."""
    return LoadedModel(tiny_run)


@pytest.fixture(scope="session")
def tiny_predictor(tiny_model) -> Predictor:
    """Returns a predictor with the tiny network, each image as one face, and batches of 1, 4, and 8."""
    return Predictor(Classifier(tiny_model, (1, 4, 8)), FullImage())


@pytest.fixture(scope="session")
def faces(tiny_data) -> np.ndarray:
    """Returns 28 faces uint8 [N, 48, 48, 1]."""
    return read.load(tiny_data, "validation").images


@pytest.fixture(scope="session")
def expected(tiny_model, faces) -> np.ndarray:
    """Returns the probabilities of `faces` as in evaluation, float64 [N, 7]."""
    return tiny_model.predict(faces, progress=False)
