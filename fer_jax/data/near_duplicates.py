"""All pairs of images that are nearly the same, by zero-mean normalised correlation.

The correlation of two images is the dot product of their pixels after subtracting each one's mean
and dividing by its norm. With P the projection on the low frequencies of the discrete cosine
transform, the rest of an image is orthogonal to it, and by Cauchy-Schwarz

    <f, g> <= <Pf, Pg> + |f - Pf| |g - Pg|.

The right side is one dot product of vectors with 145 numbers instead of 2,304; only where it reaches
the threshold are the pixels themselves compared.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

SIDE = 48
_LOW = 12  # frequencies kept along each axis
_BLOCK = 4096
_CHUNK = 8192  # candidate pairs compared together
_SLACK = 1e-5  # of float32 sums; candidates only


def shrink(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] as grey uint8 [48, 48], in which copies are looked for."""
    if image.shape == (SIDE, SIDE):
        return image
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def near_pairs(
    images: np.ndarray,
    threshold: float,
    each: Callable[[], None] = lambda: None,
    *,
    others: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Finds all pairs whose correlation is at least `threshold`.

    Args:
      images: uint8 [N, H, W]. Blank ones correlate with nothing.
      threshold: above 0, at most 1.
      each: called after each of the `block_count` blocks of pairs.
      others: uint8 [L, H, W]; the pairs are then of an image and one of these.

    Yields:
      First and second index int64 [M], first < second but with `others`, and correlation float32 [M];
      M may be 0.
    """
    pixels = _normalised(images)
    bounds = _bound_vectors(pixels, images.shape[1:])
    pixels2, bounds2 = pixels, bounds
    if others is not None:
        pixels2 = _normalised(others)
        bounds2 = _bound_vectors(pixels2, others.shape[1:])
    for i, j in _blocks(len(pixels), None if others is None else len(pixels2)):
        product = bounds[i : i + _BLOCK] @ bounds2[j : j + _BLOCK].T
        hits = np.flatnonzero(product >= threshold - _SLACK)
        first, second = hits // product.shape[1] + i, hits % product.shape[1] + j
        if others is None:
            once = first < second
            first, second = first[once], second[once]
        yield _compare(pixels, pixels2, first, second, threshold)
        each()


def block_count(count: int, others: int | None = None) -> int:
    """How many blocks `near_pairs` works through for `count` images, or for these and so many others."""
    return sum(1 for _ in _blocks(count, others))


def _blocks(count: int, others: int | None) -> Iterator[tuple[int, int]]:
    for i in range(0, count, _BLOCK):
        for j in range(i if others is None else 0, count if others is None else others, _BLOCK):
            yield i, j


def _normalised(images: np.ndarray) -> np.ndarray:
    """float32 [N, H * W] with mean 0 and norm 1 (0 for blank images)."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(pixels, axis=1, keepdims=True)
    pixels /= np.where(norms > 1e-3, norms, np.inf)
    return pixels


def _bound_vectors(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 [N, K + 1]: the low frequencies of each image and the norm of its rest."""
    rows, columns = (_low_frequencies(n) for n in shape)
    low = np.concatenate(
        [
            np.einsum("kh,nhw,lw->nkl", rows, part, columns, optimize=True).reshape(len(part), -1)
            for part in np.split(pixels.reshape(-1, *shape), range(_BLOCK, len(pixels), _BLOCK))
        ]
    )
    energy = np.einsum("nd,nd->n", pixels, pixels) - np.einsum("nk,nk->n", low, low)
    return np.concatenate([low, np.sqrt(np.maximum(energy, 0))[:, None]], axis=1)


def _low_frequencies(n: int) -> np.ndarray:
    """The first rows of the orthonormal DCT-II matrix of size n, float32 [K, n]."""
    k, x = np.arange(min(_LOW, n))[:, None], np.arange(n) + 0.5
    scale = np.where(k == 0, np.sqrt(1 / n), np.sqrt(2 / n))
    return (scale * np.cos(np.pi / n * k * x)).astype(np.float32)


def _compare(
    pixels: np.ndarray, pixels2: np.ndarray, first: np.ndarray, second: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = np.empty(len(first), np.float32)
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        np.einsum("nd,nd->n", pixels[first[part]], pixels2[second[part]], out=values[part])
    near = values >= threshold - 1e-6  # identical images may come out one rounding below 1
    return first[near], second[near], np.minimum(values[near], 1)
