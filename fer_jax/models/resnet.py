"""ResNet18 (He et al. 2015, arXiv:1512.03385)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import Backbone, DropPath
from fer_jax.models.layers import FeatureMap
from fer_jax.models.ops.pooling import global_pool, max_pool_3x3


class BasicBlock(nn.Module):
    """ResNet's basic block: two 3x3 convolutions and a shortcut, projected if the shape changes.

    Attributes:
      conv, norm: constructors from `Backbone.layers`.
      features: output channels.
      stride: stride of the first convolution.
      drop_path: rate at which the branch is skipped.
    """

    conv: Any
    norm: Any
    features: int
    stride: int
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        shortcut = x
        y = self.conv(self.features, 3, self.stride, name="conv_0")(x)
        y = self.norm(tail=nn.relu, name="norm_0")(y)
        y = self.norm(name="norm_1")(self.conv(self.features, 3, name="conv_1")(y))
        if y.shape != x.shape:
            shortcut = self.conv(self.features, 1, self.stride, name="project")(x)
            shortcut = self.norm(name="project_norm")(shortcut)
        return nn.relu(shortcut + DropPath(self.drop_path)(y))


class ResNet18(Backbone):
    """ResNet18.

    Parts: `stem`, `stem_norm`, `block_0` ... `block_7`, `head`.

    Attributes:
      small_stem: whether the stem is a 3x3 convolution with stride 1 without max-pooling, for faces of about
        48 pixels.
    """

    small_stem: bool = False

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        size, stride = (3, 1) if self.small_stem else (7, 2)
        x = self.conv_norm(self.enter(x), train, "stem", nn.relu, 64, size, stride)
        if not self.small_stem:
            x = max_pool_3x3(x)
        for i in range(8):
            name, shape = f"block_{i}", {"features": 64 * 2 ** (i // 2), "stride": 2 if i in (2, 4, 6) else 1}
            rate = self.drop_rate(i, 8, train)
            x = BasicBlock(**self.layers(train, name), **shape, drop_path=rate, name=name)(x)
        return self.leave(global_pool(FeatureMap()(x)), train, features)
