"""Fixtures of the tests of inference."""

import pathlib
import shutil

import pytest

from fer_jax.inference.predictor import Predictor
from fer_jax.pretrained import download


@pytest.fixture(scope="session")
def photos(shared_dir) -> pathlib.Path:
    """The folder with real photos."""
    return shared_dir / "assets" / "photos"


@pytest.fixture
def detector_cache(shared_dir, tmp_path, monkeypatch) -> pathlib.Path:
    """A cache of downloads that holds the detectors' files."""
    shutil.copytree(shared_dir / "assets" / "detectors", tmp_path / "cache" / "detectors")
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_predictor(tiny_run) -> Predictor:
    """The tiny network, each picture a face, in batches of 1, 4 and 8."""
    return Predictor.load(tiny_run, "whole", batch_sizes=(1, 4, 8))
