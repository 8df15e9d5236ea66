"""A dataset that is built once for all tests that only read it."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_jax.data.dataset.build import build

USAGE = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}


@dataclasses.dataclass
class Built:
    """A dataset and its rows: 30, 9, and 8 per split, interleaved."""

    source: Path
    out: Path
    manifest: dict[str, Any]
    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray

    def copy(self, out: Path) -> Path:
        return shutil.copytree(self.out, out)


@pytest.fixture(scope="session")
def built(faces, tmp_path_factory) -> Built:
    rng = np.random.default_rng(0)
    splits = rng.permutation(np.repeat(list(USAGE), (30, 9, 8)))
    images, labels = faces(47), rng.integers(0, 7, 47)
    folder = tmp_path_factory.mktemp("built")
    rows = [
        f"{label},{' '.join(map(str, image.ravel()))},{USAGE[split]}"
        for image, label, split in zip(images, labels, splits, strict=True)
    ]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows, ""]))
    manifest = build(folder / "fer2013.csv", folder / "data")
    return Built(folder / "fer2013.csv", folder / "data", manifest, images, labels, splits)
