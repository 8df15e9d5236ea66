"""Finds images of a split that have an identical or near duplicate in another split.

The official splits of FER2013 leak: 8 % of the test faces have an identical duplicate in Training. Scores on
unseen faces exclude these images.
"""

import numpy as np
from tqdm import tqdm

from fer_jax.data import near_duplicates, splits

# Minimum zero-mean normalized correlation at 48 x 48 in grayscale, as in the audit.
NEAR = 0.9
KINDS = ("none", "near", "identical")
_BLOCK = 8192  # other images per block; bounds the memory


def find_duplicates(images: np.ndarray, others: np.ndarray, *, progress: bool = True) -> np.ndarray:
    """Returns the kind of the closest match of each image among others, int8 [N], indices into `KINDS`.

    Both are uint8 [N, H, W, C], or objects with `shape` and NumPy-style indexing.
    """
    known = {splits.pixel_digest(image) for block in splits.blocks(others) for image in block}
    identical = [splits.pixel_digest(image) in known for block in splits.blocks(images) for image in block]
    kinds = np.where(identical, 2, 0).astype(np.int8)
    small = _shrunk(images)
    starts = range(0, others.shape[0], _BLOCK)
    for start in tqdm(starts, "searching for duplicates", unit="block", disable=not progress):
        block = others[np.arange(start, min(start + _BLOCK, others.shape[0]))]
        for first, _, _ in near_duplicates.near_pairs(small, NEAR, others=_shrunk(block)):
            kinds[first] = np.maximum(kinds[first], 1)
    return kinds


def leak_free(copies: np.ndarray) -> dict[str, np.ndarray]:
    """Returns by name which images have no identical copy, or none at all: bool [N] of kinds int8 [N]."""
    return {"without_identical": copies < 2, "without_near": copies < 1}


def find_duplicate_pairs(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of identical or near duplicates in a split, as indices int64 [M] and int64 [M]."""
    pairs = [(first, second) for first, second, _ in near_duplicates.near_pairs(_shrunk(images), NEAR)]
    first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return first, second


def _shrunk(images: np.ndarray) -> np.ndarray:
    """Returns grayscale uint8 [N, 48, 48]."""
    small = [
        near_duplicates.shrink(image[..., 0] if image.shape[-1] == 1 else image)
        for block in splits.blocks(images)
        for image in block
    ]
    return np.stack(small)
