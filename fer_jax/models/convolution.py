"""Convolutions: the backend's own, or on the CPU what is faster there, to the same numbers up to rounding."""

import functools
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


def padding_of(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Zeros before and after an axis of `size` pixels.

    Args:
      size: of the axis.
      kernel, stride: of the convolution.
      padding: 'symmetric', (kernel - 1) // 2 on both sides, as torch networks pad; or 'same', as TensorFlow
        does, where at stride 2 the far side gets the odd one.

    Raises:
      ValueError: `padding` is another.
    """
    if padding == "symmetric":
        return (kernel - 1) // 2, (kernel - 1) // 2
    if padding != "same":
        raise ValueError(f"padding={padding!r}; there are: same, symmetric")
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _direct(
    x: jnp.ndarray,
    kernel: jnp.ndarray,
    padding: str | Sequence[tuple[int, int]],
    stride: int = 1,
    groups: int = 1,
) -> jnp.ndarray:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


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


def _on_cpu(x: jnp.ndarray) -> bool:
    return jax.default_backend() == "cpu" and x.dtype == jnp.float32


def convolve(x: jnp.ndarray, kernel: jnp.ndarray, stride: int = 1, padding: str = "same") -> jnp.ndarray:
    """Convolution with zeros around: [B, H, W, C] and kernel [k, k, C, D] -> [B, ceil(H / stride), ..., D].

    Args:
      x, kernel: of one float type.
      stride: of both axes.
      padding: 'same' or 'symmetric', see `padding_of`.
    """
    size = kernel.shape[0]
    if size == 1:
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    if size == 3 and stride == 1 and _on_cpu(x) and min(kernel.shape[2:]) >= _MIN_CHANNELS:
        return _winograd(x, kernel)
    return _direct(x, kernel, [padding_of(n, size, stride, padding) for n in x.shape[1:3]], stride)


# -------------------- depthwise --------------------


def _slices(x: jnp.ndarray, kernel_size: int, stride: int, out: tuple[int, int]) -> Grid:
    """kernel_size x kernel_size arrays [B, *out, C]: what each place of a kernel sees of a padded array."""
    h, w = stride * (out[0] - 1) + 1, stride * (out[1] - 1) + 1
    places = range(kernel_size)
    return [[x[:, i : i + h : stride, j : j + w : stride] for j in places] for i in places]


def _weighted(grid: Grid, kernel: jnp.ndarray) -> jnp.ndarray:
    """Sum of arrays [B, H, W, C] times the rows of a kernel [k, k, C]."""
    total = 0
    for row, weights in zip(grid, kernel, strict=True):
        for x, weight in zip(row, weights, strict=True):
            total = total + x * weight
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, pads):
    return _depthwise_fwd(x, kernel, stride, pads)[0]


def _depthwise_fwd(x, kernel, stride, pads):
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    size = kernel.shape[0]
    out = tuple((n - size) // stride + 1 for n in padded.shape[1:3])
    return _weighted(_slices(padded, size, stride, out), kernel), (x, kernel)


def _depthwise_bwd(stride, pads, residuals, gradient):
    x, kernel = residuals
    size, out = kernel.shape[0], gradient.shape[1:3]
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    d_kernel = jnp.stack(
        [
            jnp.stack([jnp.sum(part * gradient, (0, 1, 2)) for part in row])
            for row in _slices(padded, size, stride, out)
        ]
    )
    # The places stride * q + a of the padded input meet every stride-th row of the kernel from a on, and the
    # gradient at q, q - 1, ...: a stride of 1 leaves one such phase, the kernel turned around.
    taps = -(-size // stride)
    gradient = jnp.pad(gradient, ((0, 0), (taps - 1, taps - 1), (taps - 1, taps - 1), (0, 0)))
    kernel = jnp.pad(kernel, ((0, taps * stride - size), (0, taps * stride - size), (0, 0)))[::-1, ::-1]
    side = tuple(n + taps - 1 for n in out)
    grid = _slices(gradient, taps, 1, side)
    phases = [
        [_weighted(grid, kernel[stride - 1 - a :: stride, stride - 1 - b :: stride]) for b in range(stride)]
        for a in range(stride)
    ]
    d_padded = jnp.stack([jnp.stack(row, 3) for row in phases], 2)
    d_padded = d_padded.reshape(len(x), side[0] * stride, side[1] * stride, -1)
    (top, _), (left, _) = pads
    missing = [
        (0, max(0, first + n - m))
        for first, n, m in zip((top, left), x.shape[1:3], d_padded.shape[1:3], strict=True)
    ]
    d_padded = jnp.pad(d_padded, ((0, 0), *missing, (0, 0)))
    return d_padded[:, top : top + x.shape[1], left : left + x.shape[2]], d_kernel


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def convolve_depthwise(
    x: jnp.ndarray, kernel: jnp.ndarray, stride: int = 1, padding: str = "same"
) -> jnp.ndarray:
    """A kernel for each channel: [B, H, W, C] and kernel [k, k, 1, C] -> [B, ceil(H / stride), ..., C].

    Args:
      x, kernel: of one float type.
      stride: of both axes.
      padding: 'same' or 'symmetric', see `padding_of`.
    """
    pads = tuple(padding_of(n, kernel.shape[0], stride, padding) for n in x.shape[1:3])
    if _on_cpu(x):
        return _depthwise(x, kernel[:, :, 0], stride, pads)
    return _direct(x, kernel, pads, stride, groups=x.shape[3])
