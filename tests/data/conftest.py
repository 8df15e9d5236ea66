"""Small sources on disk, shared by the tests of fer_jax.data."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE = 48


def random_faces(count: int, seed: int = 0, shape: tuple[int, ...] = (SIDE, SIDE)) -> np.ndarray:
    """uint8 [count, *shape], all different."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture
def faces():
    return random_faces


@pytest.fixture
def write_csv(tmp_path):
    """write(images, labels, usages) -> path; `header` and `order` say how the columns are named and lie."""

    def write(
        images,
        labels,
        usages,
        *,
        name="fer2013.csv",
        header=("emotion", "pixels", "Usage"),
        encoding="utf-8",
    ) -> Path:
        path = tmp_path / name
        with open(path, "w", newline="", encoding=encoding) as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for image, label, usage in zip(images, labels, usages, strict=True):
                row = {
                    "emotion": label,
                    "pixels": " ".join(map(str, np.ravel(image))),
                    "usage": usage,
                }
                writer.writerow([row[column.strip().lower()] for column in header])
        return path

    return write


@pytest.fixture
def write_images(tmp_path):
    """write({"train/happy/1.png": array, ...}) -> the folder."""

    def write(files: dict[str, np.ndarray], root: str = "images") -> Path:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for name, image in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        return folder

    return write
