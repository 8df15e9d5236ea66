"""Convolutions: the backend's own, or on the CPU what is faster there, to the same numbers up to rounding."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fer_jax.models.ops import onednn, portable

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

# With fewer channels the sums cost more than the products save, with fewer tiles the kernel's transforms do.
_MIN_CHANNELS, _MIN_TILES = 32, 64

Grid = list[list[jnp.ndarray]]
Pads = Sequence[tuple[int, int]]


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


def _filter(padded: jnp.ndarray, kernel: jnp.ndarray, transposed: bool = False) -> jnp.ndarray:
    """Convolve a padded array with a kernel [3, 3, C, D] -> [B, H, W, D]; `transposed`, [3, 3, D, C]."""
    batch, h, w = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2
    # A kernel is transposed by the product: transforming one that lies across takes ten times as long.
    contracted = (((1,), (1 if transposed else 0,)), ((), ()))
    kernels = _transform(_G.T, [list(row) for row in kernel])
    products = [
        [lax.dot_general(u, k, contracted) for u, k in zip(us, ks, strict=True)]
        for us, ks in zip(_patches(padded), kernels, strict=True)
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


def _direct(x: jnp.ndarray, kernel: jnp.ndarray, pads: Pads, stride: int = 1, groups: int = 1) -> jnp.ndarray:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
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
    d_x = _filter(padded_gradient, kernel[::-1, ::-1], transposed=True)[:, :height, :width]
    return d_x, _filter_gradient(padded, padded_gradient)


_winograd.defvjp(_winograd_fwd, _winograd_bwd)


def _is_worth_winograd(x: jnp.ndarray, kernel: jnp.ndarray) -> bool:
    if jax.default_backend() != "cpu" or x.dtype != jnp.float32:
        return False
    tiles = len(x) * -(-x.shape[1] // _TILE) * -(-x.shape[2] // _TILE)
    return tiles >= _MIN_TILES and min(kernel.shape[2:]) >= _MIN_CHANNELS


# -------------------- oneDNN's --------------------


@jax.custom_vjp
def _pointwise(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """[N, C] @ [C, D], by products that read what has to be transposed as it lies."""
    return onednn.matmul(x, kernel)


def _pointwise_fwd(x, kernel):
    return onednn.matmul(x, kernel), (x, kernel)


def _pointwise_bwd(residuals, gradient):
    x, kernel = residuals
    return onednn.matmul(gradient, kernel, transpose_b=True), onednn.matmul(x, gradient, transpose_a=True)


_pointwise.defvjp(_pointwise_fwd, _pointwise_bwd)


def _pads_of_gradient(pads: Pads, kernel: int, inputs: Sequence[int], outputs: Sequence[int]) -> Pads:
    """Zeros around the output's gradient such that the turned kernel, at stride 1, gives the input's."""
    before = [kernel - 1 - first for first, _ in pads]
    return tuple((b, n - m + kernel - 1 - b) for b, n, m in zip(before, inputs, outputs, strict=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x, kernel, pads, stride):
    return onednn.convolve(x, kernel, pads, (stride, stride))


def _dense_fwd(x, kernel, pads, stride):
    return _dense(x, kernel, pads, stride), (x, kernel)


def _dense_bwd(pads, stride, residuals, gradient):
    x, kernel = residuals
    if x.dtype == jnp.bfloat16 and stride == 1:
        d_kernel = _kernel_gradient(x, gradient, pads)
    else:
        _, pull = jax.vjp(lambda kernel: _direct(x, kernel, pads, stride), kernel)
        (d_kernel,) = pull(gradient)
    if stride > 1:
        _, pull = jax.vjp(lambda x: _direct(x, kernel, pads, stride), x)
        return *pull(gradient), d_kernel
    around = _pads_of_gradient(pads, kernel.shape[0], x.shape[1:3], gradient.shape[1:3])
    return onednn.convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), around, (1, 1)), d_kernel


_dense.defvjp(_dense_fwd, _dense_bwd)


def _kernel_gradient(x: jnp.ndarray, gradient: jnp.ndarray, pads: Pads) -> jnp.ndarray:
    """Of a convolution at stride 1: itself one, of channels for images with images for channels."""
    across = onednn.convolve(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), pads, (1, 1))
    return across.transpose(1, 2, 0, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, pads, stride):
    """The batch as one volume, [1, B, H, W, C]: so the kernel's gradient is a convolution like the others."""
    return onednn.convolve(x, kernel[None], [(0, 0), *pads], (1, stride, stride), groups=x.shape[-1])


def _depthwise_fwd(x, kernel, pads, stride):
    return _depthwise(x, kernel, pads, stride), (x, kernel)


def _depthwise_bwd(pads, stride, residuals, gradient):
    x, kernel = residuals
    # With zeros between its pixels the gradient is that of a convolution at stride 1.
    apart = (0, 0, stride - 1)
    gradient = lax.pad(gradient, 0.0, ((0, 0, 0), (0, 0, 0), apart, apart, (0, 0, 0)))
    inputs, outputs, size = x.shape[2:4], gradient.shape[2:4], kernel.shape[0]
    around = _pads_of_gradient(pads, size, inputs, outputs)
    d_x = _depthwise(gradient, kernel[::-1, ::-1], around, 1)
    around = [
        (first, m + size - 1 - n - first) for (first, _), n, m in zip(pads, inputs, outputs, strict=True)
    ]
    d_kernel = onednn.convolve(
        x, gradient[0, :, :, :, None], [(0, 0), *around], (1, 1, 1), groups=x.shape[-1]
    )
    return d_x, d_kernel.reshape(kernel.shape)


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


# -------------------- whatever is best --------------------


def _shifted(x: jnp.ndarray, kernel: jnp.ndarray, pads: Pads, stride: int) -> jnp.ndarray:
    """Depthwise, a sum over the kernel's places: XLA's own takes ten times as long on a CPU."""
    size = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    h, w = (n - size + 1 for n in x.shape[1:3])
    return sum(
        x[:, i : i + h : stride, j : j + w : stride] * kernel[i, j] for i in range(size) for j in range(size)
    )


def convolve(x: jnp.ndarray, kernel: jnp.ndarray, stride: int = 1, padding: str = "same") -> jnp.ndarray:
    """Convolution with zeros around: [B, H, W, C] and kernel [k, k, C, D] -> [B, ceil(H / stride), ..., D].

    Args:
      x, kernel: of one float type.
      stride: of both axes.
      padding: 'same' or 'symmetric', see `padding_of`.
    """
    size = kernel.shape[0]
    pads = tuple(padding_of(n, size, stride, padding) for n in x.shape[1:3])
    if portable.is_on():
        return _direct(x, kernel, pads, stride)
    if size == 1:
        x, kernel = x[:, ::stride, ::stride], kernel[0, 0]
        if not onednn.is_usable(x, kernel):
            return x @ kernel
        return _pointwise(x.reshape(-1, x.shape[3]), kernel).reshape(*x.shape[:3], -1)
    if size == 3 and stride == 1 and _is_worth_winograd(x, kernel):
        return _winograd(x, kernel)
    return (_dense if onednn.is_usable(x, kernel) else _direct)(x, kernel, pads, stride)


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
    if portable.is_on() or jax.default_backend() != "cpu":
        return _direct(x, kernel, pads, stride, groups=x.shape[3])
    # In float32 whatever the type of the arrays: in bfloat16 the sums, above all the gradient's over batch
    # and space, would lose what they add up.
    wide, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    if onednn.is_usable(wide, kernel):
        return _depthwise(wide[None], kernel, pads, stride)[0].astype(x.dtype)
    return _shifted(wide, kernel, pads, stride).astype(x.dtype)
