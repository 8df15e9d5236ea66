"""Small sources on disk for the tests of fer_jax.data."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

SIDE = 48


def random_faces(count: int, seed: int = 0, shape: tuple[int, ...] = (SIDE, SIDE)) -> np.ndarray:
    """Returns distinct random images uint8 [count, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture(scope="session")
def faces():
    return random_faces


@pytest.fixture(scope="session")
def related_faces():
    """Returns smooth images uint8 [240, 48, 48]: each third a noisy copy of the next, two of them blank."""
    rng = np.random.default_rng(3)
    blur = ImageFilter.GaussianBlur(3)
    blurred = [np.asarray(Image.fromarray(image).filter(blur)) for image in random_faces(240)]
    images = np.stack(blurred).astype(float)
    images = 128 + 6 * (images - images.mean())
    for i in range(0, 240, 3):
        noise = rng.normal(0, rng.uniform(2, 40), (48, 48))
        images[i] = rng.uniform(0.5, 1.5) * images[i + 1] + rng.uniform(-20, 20) + noise
    images[[100, 200]] = 77
    return images.clip(0, 255).round().astype(np.uint8)


@pytest.fixture
def write_csv(tmp_path):
    """Returns write(images, labels, usages) -> path; `header` names the columns, `form` is for csv.writer."""

    columns = ("emotion", "pixels", "Usage")

    def write(images, labels, usages, *, name="fer2013.csv", header=columns, encoding="utf-8", **form):
        with open(tmp_path / name, "w", newline="", encoding=encoding) as file:
            writer = csv.writer(file, **form)
            writer.writerow(header)
            for image, label, usage in zip(images, labels, usages, strict=True):
                row = {"emotion": label, "pixels": " ".join(map(str, np.ravel(image))), "usage": usage}
                writer.writerow([row[column.strip().lower()] for column in header])
        return tmp_path / name

    return write


@pytest.fixture
def write_images(tmp_path):
    """Returns write({"train/happy/1.png": array, ...}) -> folder; names alone give random faces."""

    def write(files: Mapping[str, np.ndarray] | Iterable[str], root: str = "images") -> Path:
        folder = tmp_path / root
        if not isinstance(files, Mapping):
            names = list(files)
            files = dict(zip(names, random_faces(len(names)), strict=True))
        for name, image in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        return folder

    return write
