"""Fixtures shared by all tests."""

import csv
import pathlib

import numpy as np
import pytest

from fer_jax.data import builder, ferplus, synthetic

FERPLUS_NAMES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


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
    return _build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_ferplus(tmp_path_factory) -> pathlib.Path:
    """The same with FER+ votes: 6 for the label, 2 for surprise (or fear) and 2 for unknown.

    Instead of neutral every second such face has contempt: 5 faces to train on, 2 and 1 to evaluate.
    """
    return _build(tmp_path_factory.mktemp("tiny_ferplus"), votes=True)


def _build(folder: pathlib.Path, votes: bool = False) -> pathlib.Path:
    usages = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
    rows, voted = ["emotion,pixels,Usage"], [["Usage", "Image name", *ferplus.COLUMNS]]
    for (split, usage), per_class in zip(usages.items(), (10, 4, 2), strict=True):
        images, labels = synthetic.generate(per_class, seed=0, split=split)
        for image, label in zip(images, labels, strict=True):
            rows.append(f"{label},{' '.join(map(str, np.ravel(image)))},{usage}")
            column = "contempt" if label == 6 and len(rows) % 2 else FERPLUS_NAMES[label]
            counts = {column: 6, "fear" if column == "surprise" else "surprise": 2, "unknown": 2}
            name = f"fer{len(rows) - 2:07d}.png"
            voted.append([usage, name, *(counts.get(column, 0) for column in ferplus.COLUMNS)])
    (folder / "fer2013.csv").write_text("\n".join(rows) + "\n")
    with open(folder / "fer2013new.csv", "w", newline="") as file:
        csv.writer(file).writerows(voted)
    ferplus_csv = folder / "fer2013new.csv" if votes else None
    builder.build(folder / "fer2013.csv", folder / "data", ferplus_csv=ferplus_csv, progress=False)
    return folder / "data"
