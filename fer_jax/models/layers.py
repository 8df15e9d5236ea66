"""Layers shared by the models."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.models.convolution import conv3x3

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")

Tail = Callable[[jnp.ndarray], jnp.ndarray]


class Conv(nn.Module):
    """3x3 convolution at stride 1 with zeros around: [B, H, W, C] -> [B, H, W, features].

    The parameters have the names and shapes of `flax.linen.Conv`.

    Attributes:
      features: channels of the output.
      use_bias: whether to add a bias.
      dtype: type of the computation and the output; the parameters are float32.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        kernel = self.param("kernel", he_normal, (3, 3, x.shape[-1], self.features))
        y = conv3x3(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


def require_side(x: jnp.ndarray, least: int) -> None:
    """Refuses faces [B, H, W, C] of which nothing would be left, which gives NaN.

    Raises:
      ValueError: H or W is less than `least`.
    """
    height, width = x.shape[1:3]
    if min(height, width) < least:
        raise ValueError(f"faces of {height}x{width} are too small for this model: at least {least}x{least}")


def _tiles(x: jnp.ndarray) -> jnp.ndarray:
    """[B, H, W, C] -> [B, H // 2, 2, W // 2, 2, C]; an odd last row or column is dropped."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)


@jax.custom_vjp
def max_pool_2x2(x: jnp.ndarray) -> jnp.ndarray:
    """Max-pool 2x2 at stride 2: [B, H, W, C] -> [B, H // 2, W // 2, C]; an odd last row or column is dropped.

    Equal to `nn.max_pool(x, (2, 2), (2, 2))` forward. Written as maximum and comparison because XLA's
    gradient of a window reduction (select-and-scatter) is single-threaded on the CPU. Where values
    tie, the gradient is shared between them instead of going to the first.
    """
    x = _tiles(x)
    rows = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def _max_pool_fwd(x):
    return max_pool_2x2(x), x


def _max_pool_bwd(x, gradient):
    tiles = _tiles(x)
    is_largest = tiles == max_pool_2x2(x)[:, :, None, :, None]
    counts = is_largest.astype(gradient.dtype)
    counts = counts[:, :, 0] + counts[:, :, 1]
    share = gradient / (counts[:, :, :, 0] + counts[:, :, :, 1])
    d_tiles = jnp.where(is_largest, share[:, :, None, :, None], 0)
    b, h, w, c = x.shape
    d_x = d_tiles.reshape(b, h // 2 * 2, w // 2 * 2, c)
    return (jnp.pad(d_x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))),)


max_pool_2x2.defvjp(_max_pool_fwd, _max_pool_bwd)


def relu_pool(x: jnp.ndarray) -> jnp.ndarray:
    """ReLU and `max_pool_2x2`; in this order because it takes the ReLU of a quarter of the numbers."""
    return nn.relu(max_pool_2x2(x))


def _tile_view(x: jnp.ndarray) -> jnp.ndarray:
    """`x` in the shape that convolutions write and pooling reads, where it has one.

    A mere reshape; without it the compiler writes such an array twice, once in either shape.
    """
    return _tiles(x) if x.ndim == 4 and x.shape[1] % 2 == x.shape[2] % 2 == 0 else x


def _sum(x: jnp.ndarray) -> jnp.ndarray:
    """Sum over all axes but the last."""
    return jnp.sum(x, axis=range(x.ndim - 1))


def _normalize_fwd(x, scale, bias, tail, epsilon, axis_name):
    shape, x = x.shape, _tile_view(x)
    count = x.size // x.shape[-1]
    mean, square = _sum(x) / count, _sum(x * x) / count
    if axis_name is not None:
        mean, square = jax.lax.pmean((mean, square), axis_name)
    var = jnp.maximum(square - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - mean) * (inverse * scale) + bias
    return (tail(y.reshape(shape)), mean, var), (x.reshape(shape), mean, inverse, scale, bias)


def _normalize_bwd(tail, epsilon, axis_name, residuals, cotangents):
    x, mean, inverse, scale, bias = residuals
    shape, x = x.shape, _tile_view(x)
    count = x.size // x.shape[-1]
    y = (x - mean) * (inverse * scale) + bias
    _, pull = jax.vjp(tail, y.reshape(shape))
    (g,) = pull(cotangents[0])  # the statistics are only stored: no gradient flows through them
    g = _tile_view(g)
    d_bias = _sum(g)
    d_scale = (_sum(g * x) - mean * d_bias) * inverse
    mean_bias, mean_scale = d_bias / count, d_scale / count
    if axis_name is not None:
        mean_bias, mean_scale = jax.lax.pmean((mean_bias, mean_scale), axis_name)
    dx = (scale * inverse) * (g - mean_bias - (x - mean) * (inverse * mean_scale))
    return dx.reshape(shape), d_scale, d_bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(x, scale, bias, tail, epsilon, axis_name):
    return _normalize_fwd(x, scale, bias, tail, epsilon, axis_name)[0]


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


def _identity(x: jnp.ndarray) -> jnp.ndarray:
    return x


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last (Ioffe & Szegedy 2015, arXiv:1502.03167).

    The parameters and statistics have the names, shapes and meaning of `flax.linen.BatchNorm` (biased
    variance), and so have its numbers. What it feeds on the CPU is memory traffic, so the gradient is
    written by hand: it keeps the input alone and computes the normalised values and `tail` again.
    Statistics are float32 whatever `dtype` is.

    Attributes:
      train: normalise with the batch's statistics and update the running ones.
      axis_name: name of a mapped axis (`pmap`) over which the statistics are averaged.
      tail: parameterless function applied to the result, such as `nn.relu`.
      momentum: share of the old running statistics that is kept.
      epsilon: added to the variance.
      dtype: type of the output.
    """

    train: bool
    axis_name: str | None = None
    tail: Tail = _identity
    momentum: float = 0.9
    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not self.train:
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            return self.tail(x * factor + (bias - mean.value * factor)).astype(self.dtype)
        # While `init` runs no axis is mapped yet.
        axis_name = None if self.is_initializing() else self.axis_name
        y, batch_mean, batch_var = _normalize(
            x.astype(jnp.float32), scale, bias, self.tail, self.epsilon, axis_name
        )
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y.astype(self.dtype)
