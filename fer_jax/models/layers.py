"""Layers shared by the models."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.models.ops import portable
from fer_jax.models.ops.convolution import convolve, convolve_depthwise

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")

Activation = Callable[[jnp.ndarray], jnp.ndarray]


class Conv(nn.Module):
    """Convolution with zeros around: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features].

    The parameters have the names and shapes of `flax.linen.Conv`.

    Attributes:
      features: channels of the output.
      size: of the kernel, odd.
      stride: of both axes.
      use_bias: whether to add a bias.
      padding: 'same' or 'symmetric', which differ at stride 2: see `convolution.padding_of`.
      dtype: type of the computation and the output; the parameters are float32.
    """

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = True
    padding: str = "same"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        kernel = self.param("kernel", he_normal, (self.size, self.size, x.shape[-1], self.features))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.padding)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


class DepthwiseConv(nn.Module):
    """Depthwise convolution, without bias: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C].

    The parameter has the name and shape of `flax.linen.Conv` with `feature_group_count=C`.

    Attributes:
      size: of the kernel, odd.
      stride: of both axes.
      padding: 'same' or 'symmetric', which differ at stride 2: see `convolution.padding_of`.
      dtype: type of the computation and the output; the parameter is float32.
    """

    size: int
    stride: int = 1
    padding: str = "same"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        kernel = self.param("kernel", he_normal, (self.size, self.size, 1, x.shape[-1]))
        return convolve_depthwise(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.padding)


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


def _largest(parts: Sequence[jnp.ndarray]) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Elementwise maximum of arrays, and which of them it is first found in (uint8).

    The gradient of pooling goes by that number. To look for what equals the maximum would lose it: a compiler
    that computes x once for the maximum and again for the comparison may round it differently.
    """
    largest, place = parts[0], jnp.zeros(parts[0].shape, jnp.uint8)
    for number, part in enumerate(parts[1:], 1):
        place = jnp.where((part > largest) | jnp.isnan(part), jnp.uint8(number), place)
        largest = jnp.maximum(largest, part)
    return largest, place


def max_pool_2x2(x: jnp.ndarray) -> jnp.ndarray:
    """Max-pool 2x2 at stride 2: [B, H, W, C] -> [B, H // 2, W // 2, C]; an odd last row or column is dropped.

    Equal to `nn.max_pool(x, (2, 2), (2, 2))`, its gradient too. Written out because XLA's gradient of a
    window reduction (select-and-scatter) is single-threaded on the CPU.
    """
    return nn.max_pool(x, (2, 2), (2, 2)) if portable.is_on() else _max_pool_2x2(x)


@jax.custom_vjp
def _max_pool_2x2(x: jnp.ndarray) -> jnp.ndarray:
    return _largest_of_tiles(x)[0]


def _largest_of_tiles(x: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    tiles = _tiles(x)
    return _largest([tiles[:, :, i, :, j] for i in (0, 1) for j in (0, 1)])


def _max_pool_fwd(x):
    largest, place = _largest_of_tiles(x)
    return largest, (place, x.shape)


def _max_pool_bwd(residuals, gradient):
    return (_into_tiles(gradient, *residuals),)


def _into_tiles(gradient: jnp.ndarray, place: jnp.ndarray, shape: Sequence[int]) -> jnp.ndarray:
    """Puts numbers [B, H // 2, W // 2, C] at their places in zeros [B, H, W, C]."""
    places = jnp.arange(4, dtype=jnp.uint8).reshape(2, 1, 2, 1)
    tiles = jnp.where(place[:, :, None, :, None] == places, gradient[:, :, None, :, None], 0)
    b, h, w, c = shape
    return jnp.pad(tiles.reshape(b, h // 2 * 2, w // 2 * 2, c), ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))


_max_pool_2x2.defvjp(_max_pool_fwd, _max_pool_bwd)


def max_pool_3x3(x: jnp.ndarray) -> jnp.ndarray:
    """Max-pool 3x3 at stride 2 with one pixel around: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    Equal to torch's `MaxPool2d(3, 2, padding=1)` with its gradient. Written out for the reason that
    `max_pool_2x2` gives.
    """
    if portable.is_on():
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    return _max_pool_3x3(x)


@jax.custom_vjp
def _max_pool_3x3(x: jnp.ndarray) -> jnp.ndarray:
    return _max_pool_3x3_fwd(x)[0]


def _max_pool_3x3_fwd(x):
    h, w = (-(-n // 2) for n in x.shape[1:3])
    # With -inf around, so that 3x3 windows at stride 2 fit.
    after = tuple(3 - n % 2 for n in x.shape[1:3])
    x_padded = jnp.pad(x, ((0, 0), (1, after[0]), (1, after[1]), (0, 0)), constant_values=-jnp.inf)
    windows = [x_padded[:, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in range(3) for j in range(3)]
    largest, place = _largest(windows)
    return largest, (place, x.shape)


def _max_pool_3x3_bwd(residuals, gradient):
    place, shape = residuals
    h, w = gradient.shape[1:3]
    edge = ((0, 0), (1, 1), (1, 1), (0, 0))
    place, gradient = jnp.pad(place, edge, constant_values=9), jnp.pad(gradient, edge)
    # The pixel 2 q + a of the padded input lies in the windows q, in its row a, and where a is 0, q - 1, in
    # its row 2.
    windows = (((1, 0), (0, 2)), ((1, 1),))
    phases = [
        [
            sum(
                jnp.where(
                    place[:, i : i + h + 1, j : j + w + 1] == 3 * row + column,
                    gradient[:, i : i + h + 1, j : j + w + 1],
                    0,
                )
                for i, row in windows[a]
                for j, column in windows[b]
            )
            for b in (0, 1)
        ]
        for a in (0, 1)
    ]
    d_padded = jnp.stack([jnp.stack(row, 3) for row in phases], 2)
    d_padded = d_padded.reshape(shape[0], 2 * h + 2, 2 * w + 2, -1)
    return (d_padded[:, 1 : 1 + shape[1], 1 : 1 + shape[2]],)


_max_pool_3x3.defvjp(_max_pool_3x3_fwd, _max_pool_3x3_bwd)


def relu_pool(x: jnp.ndarray) -> jnp.ndarray:
    """ReLU and `max_pool_2x2`; in this order because it takes the ReLU of a quarter of the numbers."""
    return nn.relu(max_pool_2x2(x))


def global_pool(x: jnp.ndarray) -> jnp.ndarray:
    """Global average pooling: [B, H, W, C] -> [B, C]."""
    return jnp.mean(x, axis=(1, 2))


class FeatureMap(nn.Module):
    """Lets a network's last spatial features [B, h, w, C] through as they are; no parameters.

    Every network calls it once, on the activations of its last convolution, before any pooling over them:
    there `evaluation.saliency` reads them and takes gradients.
    """

    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        return x


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means (Hu et al. 2018, arXiv:1709.01507).

    Attributes:
      channels: of the bottleneck.
      act: after the bottleneck.
      gate: makes the factors.
      dtype: type of the computation.
    """

    channels: int
    act: Activation = nn.relu
    gate: Activation = nn.sigmoid
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        s = self.act(nn.Dense(self.channels, dtype=self.dtype, name="reduce")(global_pool(x)))
        s = self.gate(nn.Dense(x.shape[-1], dtype=self.dtype, name="expand")(s))
        return x * s[:, None, None]


def _tile_view(x: jnp.ndarray) -> jnp.ndarray:
    """`x` in the shape that convolutions write and pooling reads, where it has one.

    A mere reshape; without it the compiler writes such an array twice, once in either shape.
    """
    return _tiles(x) if x.ndim == 4 and x.shape[1] % 2 == x.shape[2] % 2 == 0 else x


def _sum(x: jnp.ndarray) -> jnp.ndarray:
    """Sum over all axes but the last."""
    return jnp.sum(x, axis=range(x.ndim - 1))


def _moments(x: jnp.ndarray, axis_name: str | None) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Mean and variance of every channel, over the devices of a mapped axis."""
    count = x.size // x.shape[-1]
    mean, square = _sum(x) / count, _sum(x * x) / count
    if axis_name is not None:
        mean, square = jax.lax.pmean((mean, square), axis_name)
    return mean, jnp.maximum(square - mean * mean, 0.0)


def _normalize_fwd(x, scale, bias, tail, epsilon, axis_name):
    shape, x = x.shape, _tile_view(x)
    mean, var = _moments(x, axis_name)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize_relu_pool(x, scale, bias, epsilon, axis_name):
    """`_normalize` with `relu_pool` for its tail, which here comes first, on a quarter of the numbers.

    A channel's normalisation keeps the order of its numbers, or turns it round where the scale is negative:
    so the largest of four results is that of the largest or of the smallest of four.
    """
    return _normalize_relu_pool_fwd(x, scale, bias, epsilon, axis_name)[0]


def _normalize_relu_pool_fwd(x, scale, bias, epsilon, axis_name):
    mean, var = _moments(_tile_view(x), axis_name)
    inverse = jax.lax.rsqrt(var + epsilon)
    sign = jnp.where(scale < 0, -1, 1).astype(x.dtype)
    first, place = _largest_of_tiles(sign * x)
    first *= sign
    y = (first - mean) * (inverse * scale) + bias
    return (nn.relu(y), mean, var), (x, first, place, mean, inverse, scale, bias)


def _normalize_relu_pool_bwd(epsilon, axis_name, residuals, cotangents):
    x, first, place, mean, inverse, scale, bias = residuals
    g = jnp.where((first - mean) * (inverse * scale) + bias > 0, cotangents[0], 0)
    d_bias, d_scale = _sum(g), _sum(g * (first - mean)) * inverse
    count = x.size // x.shape[-1]
    mean_bias, mean_scale = d_bias / count, d_scale / count
    if axis_name is not None:
        mean_bias, mean_scale = jax.lax.pmean((mean_bias, mean_scale), axis_name)
    pulled = _into_tiles(g, place, x.shape)
    dx = (scale * inverse) * (pulled - mean_bias - (x - mean) * (inverse * mean_scale))
    return dx, d_scale, d_bias


_normalize_relu_pool.defvjp(_normalize_relu_pool_fwd, _normalize_relu_pool_bwd)


def _identity(x: jnp.ndarray) -> jnp.ndarray:
    return x


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last (Ioffe & Szegedy 2015, arXiv:1502.03167).

    The parameters and statistics have the names, shapes and meaning of `flax.linen.BatchNorm` (biased
    variance), and so have its numbers. What it feeds on the CPU is memory traffic, so the gradient is
    written by hand: it keeps the input (with `relu_pool` also what that takes of it) and computes the rest
    again.
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
    tail: Activation = _identity
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
        x = x.astype(jnp.float32)
        if self.tail is relu_pool:
            result = _normalize_relu_pool(x, scale, bias, self.epsilon, axis_name)
        else:
            result = _normalize(x, scale, bias, self.tail, self.epsilon, axis_name)
        y, batch_mean, batch_var = result
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y.astype(self.dtype)
