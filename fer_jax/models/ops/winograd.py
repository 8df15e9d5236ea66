"""Winograd's algorithm: 3x3 convolutions with stride 1 and a third of the products, for the CPU.

F(3x3, 3x3) of Lavin & Gray 2015 (arXiv:1509.09308) at the points 0, 1, -1, 2, and infinity: a 3x3 tile of the
output is A^T [(G w G^T) * (B^T x B)] A for the 5x5 patch x around it. This takes 25 products instead of 81,
with short sums that keep float32 accuracy. The sizes of 48 px faces after each halving, down to 6, are
multiples of the tile.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

_TILE = 3
_B = np.array(
    [[2, 0, 0, 0, 0], [-1, -2, 2, -1, 2], [-2, -1, -3, 0, -1], [1, 1, 1, 1, -2], [0, 0, 0, 0, 1]], np.float32
)
_G = np.array(
    [[1 / 2, 0, 0], [-1 / 2, -1 / 2, -1 / 2], [-1 / 6, 1 / 6, -1 / 6], [1 / 6, 1 / 3, 2 / 3], [0, 0, 1]],
    np.float32,
)
_A = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [0, 0, 1]], np.float32)

# With fewer channels or tiles, transforming the input or the kernel costs more than is saved.
_MIN_CHANNELS, _MIN_TILES = 32, 64

Grid = list[list[jnp.ndarray]]


def is_faster(x: jnp.ndarray, kernel: jnp.ndarray) -> bool:
    """Returns whether this algorithm is the fastest for float32 arrays of these shapes on a CPU."""
    tiles = len(x) * -(-x.shape[1] // _TILE) * -(-x.shape[2] // _TILE)
    return tiles >= _MIN_TILES and min(kernel.shape[2:]) >= _MIN_CHANNELS


def convolve(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Convolves [B, H, W, C] with [3, 3, C, D] -> [B, H, W, D], with padding 1."""
    return _filter(_pad(x), kernel)[:, : x.shape[1], : x.shape[2]]


def gradients(x: jnp.ndarray, kernel: jnp.ndarray, gradient: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Returns the gradients of `x` and `kernel`, given the gradient of the output of `convolve`."""
    height, width = gradient.shape[1:3]
    padded, gradient = _pad(x), _pad(gradient)
    d_x = _filter(gradient, kernel[::-1, ::-1], transposed=True)[:, :height, :width]
    products = [
        [u.T @ v for u, v in zip(us, vs, strict=True)]
        for us, vs in zip(_patches(padded), _transform(_A.T, _strided(gradient, 1, _TILE)), strict=True)
    ]
    return d_x, jnp.stack([jnp.stack(row) for row in _transform(_G, products)])


def _combine(weights: np.ndarray, arrays: Sequence[jnp.ndarray]) -> jnp.ndarray:
    """Returns the weighted sum of arrays, unrolled so that the compiler fuses it into its consumer."""
    total: Any = None
    for weight, x in zip(weights.tolist(), arrays, strict=True):
        if weight:
            x = x if weight == 1 else -x if weight == -1 else weight * x
            total = x if total is None else total + x
    return total


def _transform(matrix: np.ndarray, grid: Grid) -> Grid:
    """Returns matrix^T @ grid @ matrix for a square grid of arrays."""
    size, out = len(grid), matrix.shape[1]
    rows = [
        [_combine(matrix[:, a], [grid[i][j] for i in range(size)]) for j in range(size)] for a in range(out)
    ]
    return [[_combine(matrix[:, b], row) for b in range(out)] for row in rows]


def _pad(x: jnp.ndarray) -> jnp.ndarray:
    """Pads [B, H, W, C] with zeros by 1, and at the end to whole tiles."""
    below, right = -x.shape[1] % _TILE, -x.shape[2] % _TILE
    return jnp.pad(x, ((0, 0), (1, 1 + below), (1, 1 + right), (0, 0)))


def _strided(x: jnp.ndarray, first: int, side: int) -> Grid:
    """Returns side x side arrays [tiles, C]: the pixels from `first` on of every tile of a padded array."""
    h, w, c = x.shape[1] - 2, x.shape[2] - 2, x.shape[3]
    starts = range(first, first + side)
    return [
        [x[:, i : i + h - _TILE + 1 : _TILE, j : j + w - _TILE + 1 : _TILE].reshape(-1, c) for j in starts]
        for i in starts
    ]


def _patches(padded: jnp.ndarray) -> Grid:
    """Returns the transformed patches of a padded array: 5x5 arrays [tiles, C]."""
    return _transform(_B, _strided(padded, 0, _TILE + 2))


def _filter(padded: jnp.ndarray, kernel: jnp.ndarray, transposed: bool = False) -> jnp.ndarray:
    """Convolves a padded array with a kernel [3, 3, C, D], or `transposed` [3, 3, D, C], -> [B, H, W, D]."""
    batch, h, w = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2
    # Transposes in the product, because transforming a transposed kernel takes ten times as long.
    contracted = (((1,), (1 if transposed else 0,)), ((), ()))
    kernels = _transform(_G.T, [list(row) for row in kernel])
    products = [
        [lax.dot_general(u, k, contracted) for u, k in zip(us, ks, strict=True)]
        for us, ks in zip(_patches(padded), kernels, strict=True)
    ]
    tiles = [[y.reshape(batch, h // _TILE, w // _TILE, -1) for y in row] for row in _transform(_A, products)]
    return jnp.stack([jnp.stack(row, 3) for row in tiles], 2).reshape(batch, h, w, -1)
