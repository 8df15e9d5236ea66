"""Fixtures shared by all tests."""

import pathlib

import numpy as np
import pytest

from fer_jax.data import builder, synthetic


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with the real FER2013 beside the checkout; tests that need it skip without it."""
    path = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (path / "fer2013" / "unpack.py").is_file():
        pytest.skip("the shared folder with the real FER2013 is not here")
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> pathlib.Path:
    """A dataset prepared from a small fer2013.csv: 70 faces to train on, 28 and 14 to evaluate."""
    folder = tmp_path_factory.mktemp("tiny")
    usages = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
    rows = ["emotion,pixels,Usage"]
    for (split, usage), per_class in zip(usages.items(), (10, 4, 2), strict=True):
        images, labels = synthetic.generate(per_class, seed=0, split=split)
        for image, label in zip(images, labels, strict=True):
            rows.append(f"{label},{' '.join(map(str, np.ravel(image)))},{usage}")
    (folder / "fer2013.csv").write_text("\n".join(rows) + "\n")
    builder.build(folder / "fer2013.csv", folder / "data", progress=False)
    return folder / "data"
