"""3x3 convolutions: the backend's own, or on the CPU Winograd's minimal filtering, which is faster there."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# F(3x3, 3x3) of Lavin & Gray 2015 (arXiv:1509.09308), at the points 0, 1, -1, 2 and infinity: a 3x3 tile of
# the output is A^T [(G w G^T) * (B^T x B)] A for the 5x5 patch x around it: 25 products instead of 81, and
# sums of few terms that keep float32's accuracy. Faces of 48 pixels, halved, stay multiples of its side.
_TILE = 3
_B = np.array(
    [[2, 0, 0, 0, 0], [-1, -2, 2, -1, 2], [-2, -1, -3, 0, -1], [1, 1, 1, 1, -2], [0, 0, 0, 0, 1]], np.float32
)
_G = np.array(
    [[1 / 2, 0, 0], [-1 / 2, -1 / 2, -1 / 2], [-1 / 6, 1 / 6, -1 / 6], [1 / 6, 1 / 3, 2 / 3], [0, 0, 1]],
    np.float32,
)
_A = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [0, 0, 1]], np.float32)

# Below these numbers of channels the sums cost more than the products save.
_MIN_CHANNELS = 32
_MIN_GRADIENT_CHANNELS = 128

Grid = list[list[jnp.ndarray]]


def _combine(weights: np.ndarray, arrays: Sequence[jnp.ndarray]) -> jnp.ndarray:
    """The weighted sum of arrays, written out: the compiler works it into what reads it."""
    total = None
    for weight, x in zip(weights.tolist(), arrays, strict=True):
        if weight:
            x = x if weight == 1 else -x if weight == -1 else weight * x
            total = x if total is None else total + x
    return total


def _transform(matrix: np.ndarray, grid: Grid) -> Grid:
    """matrix^T @ grid @ matrix for a square grid of arrays."""
    size, out = len(grid), matrix.shape[1]
    rows = [
        [_combine(matrix[:, a], [grid[i][j] for i in range(size)]) for j in range(size)] for a in range(out)
    ]
    return [[_combine(matrix[:, b], row) for b in range(out)] for row in rows]


def _pad(x: jnp.ndarray) -> jnp.ndarray:
    """[B, H, W, C] with the zeros around it that the patches of whole tiles reach."""
    below, right = -x.shape[1] % _TILE, -x.shape[2] % _TILE
    return jnp.pad(x, ((0, 0), (1, 1 + below), (1, 1 + right), (0, 0)))


def _strided(x: jnp.ndarray, first: int, side: int) -> Grid:
    """side x side arrays [tiles, C]: the places first, first + 1, ... of every tile of a padded array."""
    h, w, c = x.shape[1] - 2, x.shape[2] - 2, x.shape[3]
    starts = range(first, first + side)
    return [
        [x[:, i : i + h - _TILE + 1 : _TILE, j : j + w - _TILE + 1 : _TILE].reshape(-1, c) for j in starts]
        for i in starts
    ]


def _patches(padded: jnp.ndarray) -> Grid:
    """The transformed patches of a padded array: 5x5 arrays [tiles, C]."""
    return _transform(_B, _strided(padded, 0, _TILE + 2))


def _filter(padded: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Convolve a padded array with a kernel [3, 3, C, D] -> [B, H, W, D]."""
    batch, h, w = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2
    kernels = _transform(_G.T, [list(row) for row in kernel])
    products = [
        [u @ k for u, k in zip(us, ks, strict=True)] for us, ks in zip(_patches(padded), kernels, strict=True)
    ]
    tiles = [[y.reshape(batch, h // _TILE, w // _TILE, -1) for y in row] for row in _transform(_A, products)]
    return jnp.stack([jnp.stack(row, 3) for row in tiles], 2).reshape(batch, h, w, -1)


def _filter_gradient(padded: jnp.ndarray, gradient: jnp.ndarray) -> jnp.ndarray:
    """Gradient [3, 3, C, D] of the kernel, from the padded input and the padded gradient of the output."""
    products = [
        [u.T @ v for u, v in zip(us, vs, strict=True)]
        for us, vs in zip(_patches(padded), _transform(_A.T, _strided(gradient, 1, _TILE)), strict=True)
    ]
    return jnp.stack([jnp.stack(row) for row in _transform(_G, products)])


def _direct(x: jnp.ndarray, kernel: jnp.ndarray, padding: str) -> jnp.ndarray:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_vjp
def _winograd(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    return _winograd_fwd(x, kernel)[0]


def _winograd_fwd(x, kernel):
    padded = _pad(x)
    y = _filter(padded, kernel)[:, : x.shape[1], : x.shape[2]]
    return y, (padded, kernel)


def _winograd_bwd(residuals, gradient):
    padded, kernel = residuals
    height, width = gradient.shape[1:3]
    padded_gradient = _pad(gradient)
    d_x = _filter(padded_gradient, kernel[::-1, ::-1].swapaxes(2, 3))[:, :height, :width]
    if min(kernel.shape[2:]) >= _MIN_GRADIENT_CHANNELS:
        return d_x, _filter_gradient(padded, padded_gradient)
    x = padded[:, : height + 2, : width + 2]
    _, pull = jax.vjp(lambda kernel: _direct(x, kernel, "VALID"), kernel)
    return d_x, *pull(gradient)


_winograd.defvjp(_winograd_fwd, _winograd_bwd)


def conv3x3(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Convolution at stride 1 with zeros around: [B, H, W, C] and kernel [3, 3, C, D] -> [B, H, W, D].

    Whatever way it is computed, the numbers agree to float32's rounding.
    """
    wide = min(kernel.shape[2:]) >= _MIN_CHANNELS
    if jax.default_backend() == "cpu" and x.dtype == jnp.float32 and wide:
        return _winograd(x, kernel)
    return _direct(x, kernel, "SAME")
