"""Fixtures shared by all tests."""

import pathlib

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with the real FER2013 beside the checkout; tests that need it skip without it."""
    path = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (path / "fer2013" / "unpack.py").is_file():
        pytest.skip("the shared folder with the real FER2013 is not here")
    return path
