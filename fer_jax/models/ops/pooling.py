"""Pooling with gradients that run on all CPU cores."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.models.ops import portable


def global_pool(x: jnp.ndarray) -> jnp.ndarray:
    """Averages over space: [B, H, W, C] -> [B, C]."""
    return jnp.mean(x, axis=(1, 2))


def relu_pool(x: jnp.ndarray) -> jnp.ndarray:
    """Applies `max_pool_2x2`, then ReLU, which in this order processes a quarter of the values."""
    return nn.relu(max_pool_2x2(x))


def max_pool_2x2(x: jnp.ndarray) -> jnp.ndarray:
    """Max-pools 2x2 with stride 2: [B, H, W, C] -> [B, H // 2, W // 2, C]; drops an odd last row or column.

    Equals `nn.max_pool(x, (2, 2), (2, 2))`, including its gradient. XLA's gradient of a window reduction
    (select-and-scatter) would be single-threaded on the CPU.
    """
    return nn.max_pool(x, (2, 2), (2, 2)) if portable.is_on() else _max_pool_2x2(x)


def max_pool_3x3(x: jnp.ndarray) -> jnp.ndarray:
    """Max-pools 3x3 with stride 2 and padding 1: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    Equals torch's `MaxPool2d(3, 2, padding=1)`, including its gradient. See also `max_pool_2x2`.
    """
    if portable.is_on():
        padding: Any = ((1, 1), (1, 1))
        return nn.max_pool(x, (3, 3), (2, 2), padding)
    return _max_pool_3x3(x)


def tiles(x: jnp.ndarray) -> jnp.ndarray:
    """Reshapes [B, H, W, C] -> [B, H // 2, 2, W // 2, 2, C]; drops an odd last row or column."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)


def largest_of_tiles(x: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Returns the maximum of each 2x2 tile, and its position in the tile: uint8, 0 to 3, row by row."""
    split = tiles(x)
    return _largest([split[:, :, i, :, j] for i in (0, 1) for j in (0, 1)])


def into_tiles(gradient: jnp.ndarray, place: jnp.ndarray, shape: Sequence[int]) -> jnp.ndarray:
    """Scatters values [B, H // 2, W // 2, C] to their positions in tiles of zeros [B, H, W, C]."""
    places = jnp.arange(4, dtype=jnp.uint8).reshape(2, 1, 2, 1)
    split = jnp.where(place[:, :, None, :, None] == places, gradient[:, :, None, :, None], 0)
    b, h, w, c = shape
    return jnp.pad(split.reshape(b, h // 2 * 2, w // 2 * 2, c), ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))


def _largest(parts: Sequence[jnp.ndarray]) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Returns the elementwise maximum of arrays, and the index of the first array that has it (uint8).

    The gradient of pooling uses this index. Comparing the inputs with the maximum would be unreliable: the
    compiler may compute an input twice, with different rounding.
    """
    largest, place = parts[0], jnp.zeros(parts[0].shape, jnp.uint8)
    for number, part in enumerate(parts[1:], 1):
        place = jnp.where((part > largest) | jnp.isnan(part), jnp.uint8(number), place)
        largest = jnp.maximum(largest, part)
    return largest, place


@jax.custom_vjp
def _max_pool_2x2(x):
    return largest_of_tiles(x)[0]


def _max_pool_2x2_fwd(x):
    largest, place = largest_of_tiles(x)
    return largest, (place, x.shape)


def _max_pool_2x2_bwd(residuals, gradient):
    return (into_tiles(gradient, *residuals),)


_max_pool_2x2.defvjp(_max_pool_2x2_fwd, _max_pool_2x2_bwd)


@jax.custom_vjp
def _max_pool_3x3(x):
    return _max_pool_3x3_fwd(x)[0]


def _max_pool_3x3_fwd(x):
    h, w = (-(-n // 2) for n in x.shape[1:3])
    # Padded with -inf so that 3x3 windows with stride 2 fit.
    after = tuple(3 - n % 2 for n in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, after[0]), (1, after[1]), (0, 0)), constant_values=-jnp.inf)
    windows = [padded[:, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in range(3) for j in range(3)]
    largest, place = _largest(windows)
    return largest, (place, x.shape)


def _max_pool_3x3_bwd(residuals, gradient):
    place, shape = residuals
    h, w = gradient.shape[1:3]
    edge = ((0, 0), (1, 1), (1, 1), (0, 0))
    place, gradient = jnp.pad(place, edge, constant_values=9), jnp.pad(gradient, edge)
    # Pixel 2 q + a of the padded input lies in row a of window q and, if a is 0, in row 2 of window q - 1.
    windows = (((1, 0), (0, 2)), ((1, 1),))

    def phase(a: int, b: int) -> Any:
        return sum(
            jnp.where(
                place[:, i : i + h + 1, j : j + w + 1] == 3 * row + column,
                gradient[:, i : i + h + 1, j : j + w + 1],
                0,
            )
            for i, row in windows[a]
            for j, column in windows[b]
        )

    padded = jnp.stack([jnp.stack([phase(a, b) for b in (0, 1)], 3) for a in (0, 1)], 2)
    padded = padded.reshape(shape[0], 2 * h + 2, 2 * w + 2, -1)
    return (padded[:, 1 : 1 + shape[1], 1 : 1 + shape[2]],)


_max_pool_3x3.defvjp(_max_pool_3x3_fwd, _max_pool_3x3_bwd)
