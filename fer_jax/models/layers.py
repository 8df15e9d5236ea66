"""Layers shared by the models."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")

Conv3x3 = functools.partial(nn.Conv, kernel_size=(3, 3), padding="SAME", kernel_init=he_normal)


def max_pool_2x2(x: jnp.ndarray) -> jnp.ndarray:
    """Max-pool 2x2 at stride 2: [B, H, W, C] -> [B, H // 2, W // 2, C]; an odd last row or column is dropped.

    Equal to `nn.max_pool(x, (2, 2), (2, 2))` forward. Written as the maximum of four slices because XLA's
    gradient of a window reduction (select-and-scatter) is single-threaded on the CPU. Where values
    tie, the gradient is shared between them instead of going to the first.
    """
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    rows = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def _channel_sum(x: jnp.ndarray) -> jnp.ndarray:
    """Sum over all axes but the last, as a product with a row of ones: on the CPU faster than a reduction."""
    flat = x.reshape(-1, x.shape[-1])
    return (jnp.ones((1, flat.shape[0]), flat.dtype) @ flat)[0]


def _normalize_fwd(x, scale, bias, epsilon, axis_name):
    count = x.size // x.shape[-1]
    moments = jnp.stack([_channel_sum(x), _channel_sum(x * x)]) / count
    if axis_name is not None:
        moments = jax.lax.pmean(moments, axis_name)
    mean = moments[0]
    var = jnp.maximum(moments[1] - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - mean) * (inverse * scale) + bias
    return (y, mean, var), (x, mean, inverse, scale)


def _normalize_bwd(epsilon, axis_name, residuals, cotangents):
    x, mean, inverse, scale = residuals
    g = cotangents[0]  # the statistics are only stored: no gradient flows through them
    count = x.size // x.shape[-1]
    d_bias = _channel_sum(g)
    d_scale = (_channel_sum(g * x) - mean * d_bias) * inverse
    mean_bias, mean_scale = d_bias / count, d_scale / count
    if axis_name is not None:
        mean_bias, mean_scale = jax.lax.pmean((mean_bias, mean_scale), axis_name)
    dx = (scale * inverse) * (g - mean_bias - (x - mean) * (inverse * mean_scale))
    return dx, d_scale, d_bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize(x, scale, bias, epsilon, axis_name):
    return _normalize_fwd(x, scale, bias, epsilon, axis_name)[0]


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last (Ioffe & Szegedy 2015, arXiv:1502.03167).

    The parameters and statistics have the names, shapes and meaning of `flax.linen.BatchNorm` (biased
    variance), and so have its numbers. The gradient is written by hand because the CPU spends half of
    what autodiff of Flax's layer costs on it. Statistics are float32 whatever `dtype` is.

    Attributes:
      train: normalise with the batch's statistics and update the running ones.
      axis_name: name of a mapped axis (`pmap`) over which the statistics are averaged.
      momentum: share of the old running statistics that is kept.
      epsilon: added to the variance.
      dtype: type of the output.
    """

    train: bool
    axis_name: str | None = None
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
            return (x * factor + (bias - mean.value * factor)).astype(self.dtype)
        # While `init` runs no axis is mapped yet.
        axis_name = None if self.is_initializing() else self.axis_name
        y, batch_mean, batch_var = _normalize(
            x.astype(jnp.float32), scale, bias, self.epsilon, axis_name
        )
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y.astype(self.dtype)
