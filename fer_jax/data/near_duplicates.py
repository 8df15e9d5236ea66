"""Finds pairs of near duplicates by zero-mean normalized correlation.

The correlation of two images is the dot product of their pixels after subtracting each one's mean
and dividing by its norm. With P the projection on the low frequencies of the discrete cosine
transform, the rest of an image is orthogonal to it, and by Cauchy-Schwarz::

    <f, g> <= <Pf, Pg> + |f - Pf| |g - Pg|.

The right side is a dot product of 145 numbers instead of 2,304; the pixels themselves are compared only where
it reaches the threshold.
"""

from collections.abc import Iterator

import numpy as np
import scipy.fft
from PIL import Image
from tqdm import tqdm

SIDE = 48
_LOW = 12  # frequencies kept along each axis
_BLOCK = 4096
_CHUNK = 8192  # candidate pairs compared together
_SLACK = 1e-5  # for rounding of float32 sums, when selecting candidates


def shrink(image: np.ndarray) -> np.ndarray:
    """Converts uint8 [H, W] or [H, W, 3] to gray uint8 [48, 48], the size for comparison."""
    if image.shape == (SIDE, SIDE):
        return image
    gray = Image.fromarray(image).convert("L")
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX))


def near_pairs(
    images: np.ndarray, threshold: float, *, others: np.ndarray | None = None, progress: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Finds all pairs whose correlation is at least `threshold`, block by block.

    Args:
      images: uint8 [N, H, W]; blank images are in no pair.
      threshold: above 0, at most 1.
      others: uint8 [L, H, W]; if given, each pair has one image of these.
      progress: whether to show a progress bar on a terminal.

    Yields:
      First and second index int64 [M], first < second unless `others` is given, and correlation
      float32 [M]; M may be 0.
    """
    pixels, bounds = _normalize(images)
    pixels2, bounds2 = (pixels, bounds) if others is None else _normalize(others)
    blocks = [
        (i, j)
        for i in range(0, len(pixels), _BLOCK)
        for j in range(i if others is None else 0, len(pixels2), _BLOCK)
    ]
    for i, j in tqdm(blocks, "comparing", unit=" blocks", disable=None if progress else True):
        product = bounds[i : i + _BLOCK] @ bounds2[j : j + _BLOCK].T
        first, second = np.nonzero(product >= threshold - _SLACK)
        first, second = first + i, second + j
        if others is None:
            once = first < second
            first, second = first[once], second[once]
        values = np.empty(len(first), np.float32)
        for start in range(0, len(first), _CHUNK):
            part = slice(start, start + _CHUNK)
            np.einsum("nd,nd->n", pixels[first[part]], pixels2[second[part]], out=values[part])
        near = values >= threshold - 1e-6  # the correlation of identical images may round below 1
        yield first[near], second[near], np.minimum(values[near], 1)


def _normalize(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, H, W] as two arrays.

    Returns:
      float32 [N, H * W] with mean 0 and norm 1 (0 for blank images), and float32 [N, K + 1], the low
      frequencies and the norm of the remainder.
    """
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(pixels, axis=1, keepdims=True)
    pixels /= np.where(norms > 1e-3, norms, np.inf)
    bounds = []
    for start in range(0, max(len(pixels), 1), _BLOCK):
        part = pixels[start : start + _BLOCK]
        waves = scipy.fft.dctn(part.reshape(len(part), *images.shape[1:]), axes=(1, 2), norm="ortho")
        low = np.asarray(waves)[:, :_LOW, :_LOW].reshape(len(part), -1)
        energy = np.einsum("nd,nd->n", part, part) - np.einsum("nk,nk->n", low, low)
        bounds.append(np.concatenate([low, np.sqrt(np.maximum(energy, 0))[:, None]], axis=1))
    return pixels, np.concatenate(bounds)
