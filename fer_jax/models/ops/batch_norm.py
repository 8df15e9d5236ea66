"""Batch normalization in training, with a gradient that recomputes cheap values to save memory bandwidth."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fer_jax.models.ops.pooling import into_tiles, largest_of_tiles, relu_pool, tiles


def normalize(
    x: jnp.ndarray,
    scale: jnp.ndarray,
    bias: jnp.ndarray,
    tail: Callable[[jnp.ndarray], jnp.ndarray],
    epsilon: float,
    axis_name: str | None,
) -> tuple[jnp.ndarray, jnp.ndarray, jnp.ndarray]:
    """Normalizes each channel by its mean and biased variance over the batch.

    The backward pass keeps the input (for `relu_pool` also the positions of the maxima) and recomputes the
    rest. No gradient flows through the returned statistics.

    Args:
      x: float32 [..., C].
      scale, bias: float32 [C], applied after normalization.
      tail: parameterless function applied last.
      epsilon: constant added to the variance.
      axis_name: mapped axis over which the statistics are averaged, or None.

    Returns:
      The result, and the mean and variance [C].
    """
    if tail is relu_pool:
        return _normalize_relu_pool(x, scale, bias, epsilon, axis_name)
    return _normalize(x, scale, bias, tail, epsilon, axis_name)


def _tile_view(x: jnp.ndarray) -> jnp.ndarray:
    """Reshapes [B, H, W, C] to the shape that pooling reads, if H and W are even.

    Without this reshape, the compiler writes the array twice, once in each shape.
    """
    return tiles(x) if x.ndim == 4 and x.shape[1] % 2 == x.shape[2] % 2 == 0 else x


def _sum(x: jnp.ndarray) -> jnp.ndarray:
    """Sums over all axes but the last."""
    return jnp.sum(x, axis=range(x.ndim - 1))


def _mean_over(axis_name: str | None, *values: jnp.ndarray) -> tuple[jnp.ndarray, ...]:
    return values if axis_name is None else jax.lax.pmean(values, axis_name)


def _moments(x: jnp.ndarray, axis_name: str | None) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Returns each channel's mean and variance."""
    count = x.size // x.shape[-1]
    mean, square = _mean_over(axis_name, _sum(x) / count, _sum(x * x) / count)
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
    (g,) = pull(cotangents[0])
    g = _tile_view(g)
    d_bias = _sum(g)
    d_scale = (_sum(g * x) - mean * d_bias) * inverse
    mean_bias, mean_scale = _mean_over(axis_name, d_bias / count, d_scale / count)
    dx = (scale * inverse) * (g - mean_bias - (x - mean) * (inverse * mean_scale))
    return dx.reshape(shape), d_scale, d_bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(x, scale, bias, tail, epsilon, axis_name):
    return _normalize_fwd(x, scale, bias, tail, epsilon, axis_name)[0]


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize_relu_pool(x, scale, bias, epsilon, axis_name):
    """Pools before normalizing, which leaves a quarter of the values to normalize.

    Normalization is monotonic within a channel: increasing, or decreasing if the scale is negative. The
    maximum of four results therefore comes from the maximum, or minimum, of the four inputs.
    """
    return _normalize_relu_pool_fwd(x, scale, bias, epsilon, axis_name)[0]


def _normalize_relu_pool_fwd(x, scale, bias, epsilon, axis_name):
    mean, var = _moments(_tile_view(x), axis_name)
    inverse = jax.lax.rsqrt(var + epsilon)
    sign = jnp.where(scale < 0, -1, 1).astype(x.dtype)
    first, place = largest_of_tiles(sign * x)
    first *= sign
    y = (first - mean) * (inverse * scale) + bias
    return (jax.nn.relu(y), mean, var), (x, first, place, mean, inverse, scale, bias)


def _normalize_relu_pool_bwd(epsilon, axis_name, residuals, cotangents):
    x, first, place, mean, inverse, scale, bias = residuals
    g = jnp.where((first - mean) * (inverse * scale) + bias > 0, cotangents[0], 0)
    d_bias, d_scale = _sum(g), _sum(g * (first - mean)) * inverse
    count = x.size // x.shape[-1]
    mean_bias, mean_scale = _mean_over(axis_name, d_bias / count, d_scale / count)
    pulled = into_tiles(g, place, x.shape)
    dx = (scale * inverse) * (pulled - mean_bias - (x - mean) * (inverse * mean_scale))
    return dx, d_scale, d_bias


_normalize_relu_pool.defvjp(_normalize_relu_pool_fwd, _normalize_relu_pool_bwd)
