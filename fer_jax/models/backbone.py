"""The base class and the blocks of the ImageNet networks."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.models.layers import Activation, BatchNorm, Conv, FeatureMap, SqueezeExcite

ADAPTERS = ("none", "rgb")


class Backbone(nn.Module):
    """Base class of the ImageNet networks.

    Maps faces float [B, S, S, C], normalized as the weights expect, to logits float32 [B, num_classes] or,
    with `features=True`, to the features float32 [B, F] before dropout and the classifier. C is 3 (the input
    pipeline repeats gray faces) or 1. With one channel, either the stem takes one channel, for weights summed
    over the colors, or `adapter` converts it to three; `pretrained.imagenet.initialize` supports both.

    The top-level parameters are the network's parts, in the order of the data: `adapter` if there is one, the
    parts listed for each family, and `head`, the classifier.

    Attributes:
      num_classes: number of logits.
      dropout: dropout rate before the classifier.
      drop_path: stochastic depth: block i of n (from 0) is skipped per image at the rate drop_path * i / n
        (Huang et al. 2016, arXiv:1603.09382, with timm's rates).
      padding: 'symmetric', as in torch, or 'same', as in TensorFlow; they differ at stride 2.
      epsilon: epsilon of BatchNorm: 1e-5 in torchvision except for MobileNetV3, 1e-3 in Keras.
      adapter: 'none', or 'rgb' for a learned 3x3 convolution from C channels to three.
      frozen: paths of BatchNorm layers that use their running statistics during training, such as
        ('block_0', 'project_norm'); other paths are ignored.
      dtype: dtype of the computation; parameters and statistics stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics.
    """

    num_classes: int = 7
    dropout: float = 0.2
    drop_path: float = 0.0
    padding: str = "symmetric"
    epsilon: float = 1e-5
    adapter: str = "none"
    frozen: tuple[tuple[str, ...], ...] = ()
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def layers(self, train: bool, *block: str) -> dict[str, Any]:
        """Returns the constructors 'conv' and 'norm' for a block (its name) or for the network itself."""

        def norm(name: str, **kwargs) -> BatchNorm:
            follows = train and (*block, name) not in self.frozen
            return BatchNorm(
                follows, self.axis_name, epsilon=self.epsilon, dtype=self.dtype, name=name, **kwargs
            )

        conv = functools.partial(Conv, use_bias=False, padding=self.padding, dtype=self.dtype)
        return {"conv": conv, "norm": norm}

    def drop_rate(self, block: int, blocks: int, train: bool) -> float:
        """Returns the rate at which block number `block` of `blocks` is skipped."""
        return self.drop_path * block / blocks if train else 0.0

    def conv_norm(self, x: jnp.ndarray, train: bool, name: str, act: Activation, *shape: int) -> jnp.ndarray:
        """Applies a convolution of `shape` (features, kernel size, stride), BatchNorm, and an activation."""
        layers = self.layers(train)
        return layers["norm"](tail=act, name=f"{name}_norm")(layers["conv"](*shape, name=name)(x))

    def inverted_residuals(
        self,
        x: jnp.ndarray,
        train: bool,
        stem: int,
        blocks: Sequence[dict[str, Any]],
        top: int,
        act: Activation,
    ) -> jnp.ndarray:
        """Returns the last spatial features of a network of inverted residual blocks.

        Args:
          x: faces float [B, S, S, C].
          train: whether the network is in training mode.
          stem: channels of the first convolution.
          blocks: attributes of each `InvertedResidual`.
          top: channels of the last convolution, or 0 for none.
          act: activation after the first and the last convolution.
        """
        x = self.conv_norm(self.enter(x), train, "stem", act, stem, 3, 2)
        for i, block in enumerate(blocks):
            name, rate = f"block_{i}", self.drop_rate(i, len(blocks), train)
            x = InvertedResidual(**self.layers(train, name), **block, drop_path=rate, name=name)(x)
        return FeatureMap()(self.conv_norm(x, train, "top", act, top, 1) if top else x)

    def enter(self, x: jnp.ndarray) -> jnp.ndarray:
        """Returns the input of the stem: the faces in `dtype`, after the adapter if there is one.

        Raises:
          ValueError: `adapter` is not one of `ADAPTERS`.
        """
        if self.adapter not in ADAPTERS:
            raise ValueError(f"adapter={self.adapter!r}: expected one of {', '.join(ADAPTERS)}")
        x = x.astype(self.dtype)
        return Conv(3, dtype=self.dtype, name="adapter")(x) if self.adapter == "rgb" else x

    def leave(self, x: jnp.ndarray, train: bool, features: bool) -> jnp.ndarray:
        """Returns logits of features [B, F], or with `features` the features themselves, as float32."""
        x = x.astype(jnp.float32)
        if features:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


def divisible(width: float) -> int:
    """Returns the multiple of 8 nearest to `width`, at least 8 and at least 90 % of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def hard_sigmoid(x: jnp.ndarray) -> jnp.ndarray:
    """Returns relu6(x + 3) / 6."""
    return jnp.clip(x / 6 + 0.5, 0, 1)


def hard_swish(x: jnp.ndarray) -> jnp.ndarray:
    """Returns x * hard_sigmoid(x) (Howard et al. 2019, arXiv:1905.02244)."""
    return x * hard_sigmoid(x)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch [B, ...] per image and scales up the remaining ones."""

    rate: float  # 0 in evaluation

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        if self.rate == 0:
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, (len(x),) + (1,) * (x.ndim - 1))
        return jnp.where(kept, x / (1 - self.rate), 0)


class InvertedResidual(nn.Module):
    """MobileNetV2's inverted residual block (Sandler et al. 2018, arXiv:1801.04381).

    1x1 expansion, depthwise convolution, optional squeeze-excitation as in MobileNetV3 and EfficientNet, 1x1
    projection, and a shortcut if input and output have the same shape.

    Attributes:
      conv, norm: constructors from `Backbone.layers`.
      expanded: channels of the depthwise convolution; the expansion is omitted if the input has as many.
      features: output channels.
      kernel, stride: kernel size and stride of the depthwise convolution.
      act: activation.
      squeeze: bottleneck channels of the squeeze-excitation, or 0 for none.
      squeeze_act, gate: activations of the squeeze-excitation, see `SqueezeExcite`.
      drop_path: rate at which the block is skipped.
    """

    conv: Any
    norm: Any
    expanded: int
    features: int
    kernel: int
    stride: int
    act: Activation
    squeeze: int = 0
    squeeze_act: Activation = nn.relu
    gate: Activation = nn.sigmoid
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        shortcut = x
        if self.expanded != x.shape[-1]:
            x = self.conv(self.expanded, 1, name="expand")(x)
            x = self.norm(tail=self.act, name="expand_norm")(x)
        x = self.conv(self.expanded, self.kernel, self.stride, depthwise=True, name="depthwise")(x)
        x = self.norm(tail=self.act, name="depthwise_norm")(x)
        if self.squeeze:
            x = SqueezeExcite(self.squeeze, self.squeeze_act, self.gate, x.dtype, name="squeeze")(x)
        x = self.norm(name="project_norm")(self.conv(self.features, 1, name="project")(x))
        return x if x.shape != shortcut.shape else shortcut + DropPath(self.drop_path)(x)
