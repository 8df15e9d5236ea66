"""Layers shared by the models."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.models.ops.batch_norm import normalize
from fer_jax.models.ops.convolution import convolve
from fer_jax.models.ops.pooling import global_pool

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")

Activation = Callable[[jnp.ndarray], jnp.ndarray]


class Conv(nn.Module):
    """Zero-padded convolution: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features].

    The parameters have the names and shapes of `flax.linen.Conv`.

    Attributes:
      features: output channels.
      size: kernel size, odd.
      stride: stride along both axes.
      use_bias: whether to add a bias.
      padding: 'same' or 'symmetric', which differ at stride 2: see `convolution.padding_of`.
      depthwise: whether each channel has its own filter (`feature_group_count=C`, features=C).
      dtype: dtype of the computation and the output; the parameters are float32.
    """

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = True
    padding: str = "same"
    depthwise: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        inputs = 1 if self.depthwise else x.shape[-1]
        kernel = self.param("kernel", he_normal, (self.size, self.size, inputs, self.features))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.padding)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


def require_side(x: jnp.ndarray, least: int) -> None:
    """Checks that faces [B, H, W, C] are large enough for all pooling layers; otherwise outputs are NaN.

    Raises:
      ValueError: H or W is less than `least`.
    """
    height, width = x.shape[1:3]
    if min(height, width) < least:
        raise ValueError(f"faces of {height}x{width} are too small for this model: at least {least}x{least}")


class FeatureMap(nn.Module):
    """Identity layer that marks a network's last spatial features [B, h, w, C].

    Every network calls it once, on the activations of its last convolution, before pooling.
    `evaluation.saliency` intercepts the call to differentiate with respect to the features.
    """

    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        return x


class SqueezeExcite(nn.Module):
    """Squeeze-excitation: scales each channel by a function of all means (Hu et al. 2018, arXiv:1709.01507).

    Attributes:
      channels: channels of the bottleneck.
      act: activation of the bottleneck.
      gate: activation that returns the factors.
      dtype: dtype of the computation.
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


class BatchNorm(nn.Module):
    """Batch normalization over every axis but the last (Ioffe & Szegedy 2015, arXiv:1502.03167).

    Has the variables and results of `flax.linen.BatchNorm` (biased variance). Statistics are float32
    regardless of `dtype`.

    Attributes:
      train: whether to normalize with batch statistics and update the running statistics.
      axis_name: name of a mapped axis (`pmap`) over which the statistics are averaged.
      tail: parameterless function applied to the result, such as `nn.relu`.
      momentum: decay rate of the running statistics.
      epsilon: constant added to the variance.
      dtype: dtype of the output.
    """

    train: bool
    axis_name: str | None = None
    tail: Activation = lambda x: x
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
        # No axis is mapped during `init`.
        axis_name = None if self.is_initializing() else self.axis_name
        x = x.astype(jnp.float32)
        y, batch_mean, batch_var = normalize(x, scale, bias, self.tail, self.epsilon, axis_name)
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y.astype(self.dtype)
