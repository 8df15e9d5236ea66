"""Images of a split that the training has seen: identical copies and near ones.

The official splits of FER2013 leak: 8 % of the test faces stand pixel for pixel in Training. A score
without these images says what the network makes of faces that are new.
"""

import numpy as np
from tqdm import tqdm

from fer_jax.data import near_duplicates, splits

# Of a zero-mean normalised correlation of 48 x 48 grey versions, as in the audit.
NEAR = 0.9
KINDS = ("none", "near", "identical")  # by how much is shared
_TOGETHER = 8192  # of the others; bounds the memory


def find_duplicates(
    images: np.ndarray, others: np.ndarray, *, threshold: float = NEAR, progress: bool = True
) -> np.ndarray:
    """What each image shares with its closest relative among others.

    Args:
      images: uint8 [N, H, W, C], or an object with `shape` and NumPy-style indexing.
      others: uint8 [L, H, W, C], likewise.
      threshold: of the correlation from which on two images are near copies.
      progress: whether to show a progress bar.

    Returns:
      int8 [N], places in `KINDS`.
    """
    known = {splits.pixel_digest(image) for block in splits.blocks(others) for image in block}
    identical = [splits.pixel_digest(image) in known for block in splits.blocks(images) for image in block]
    kinds = np.where(identical, 2, 0).astype(np.int8)
    small = _shrunk(images)
    starts = range(0, others.shape[0], _TOGETHER)
    for start in tqdm(starts, "looking for copies", unit="part", disable=not progress):
        part = others[np.arange(start, min(start + _TOGETHER, others.shape[0]))]
        for first, _, _ in near_duplicates.near_pairs(small, threshold, others=_shrunk(part)):
            kinds[first] = np.maximum(kinds[first], 1)
    return kinds


def find_duplicate_pairs(images: np.ndarray, *, threshold: float = NEAR) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images of one split that are nearly or wholly the same: their places int64 [M], twice."""
    pairs = [(first, second) for first, second, _ in near_duplicates.near_pairs(_shrunk(images), threshold)]
    first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return first, second


def _shrunk(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 48, 48], grey."""
    small = [
        near_duplicates.shrink(image[..., 0] if image.shape[-1] == 1 else image)
        for block in splits.blocks(images)
        for image in block
    ]
    return np.stack(small)
