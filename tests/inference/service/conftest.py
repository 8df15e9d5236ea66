"""Fixtures for tests of the service."""

import contextlib

import pytest
from fastapi.testclient import TestClient

from fer_jax.data.sources import synthetic
from fer_jax.inference.classifier import Classifier
from fer_jax.inference.detection.detectors import FullImage
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.service.service import Limits, create_app
from fer_jax.pretrained.loaded_model import LoadedModel


@pytest.fixture(scope="module")
def network(tiny_run):
    return Classifier(LoadedModel(tiny_run), sizes=(1, 4))


@pytest.fixture(scope="module")
def faces():
    return synthetic.generate(1, seed=5, split="test")[0]  # uint8 [7, 48, 48, 1]


@pytest.fixture
def serve(network):
    """Returns a function that starts a service and returns a client once it is ready."""
    with contextlib.ExitStack() as stack:

        def start(detector=None, ready=True, app=None, **limits):
            app = create_app(Predictor(network, detector or FullImage()), Limits(**limits), **app or {})
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            while ready and client.get("/ready").status_code != 200:
                pass
            return client

        yield start
