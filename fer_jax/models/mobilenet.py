"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) and V3-Small (Howard et al. 2019, arXiv:1905.02244)."""

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import Backbone, divisible, hard_sigmoid, hard_swish
from fer_jax.models.ops.pooling import global_pool

# Blocks, channels, stride, expansion.
_V2_STAGES = (
    (1, 16, 1, 1),
    (2, 24, 2, 6),
    (3, 32, 2, 6),
    (4, 64, 2, 6),
    (3, 96, 1, 6),
    (3, 160, 2, 6),
    (1, 320, 1, 6),
)
# Kernel, expanded channels, channels, bottleneck channels of the squeeze-excitation, activation, stride.
_V3_SMALL = (
    (3, 16, 16, divisible(16 / 4), nn.relu, 2),
    (3, 72, 24, 0, nn.relu, 2),
    (3, 88, 24, 0, nn.relu, 1),
    (5, 96, 40, divisible(96 / 4), hard_swish, 2),
    (5, 240, 40, divisible(240 / 4), hard_swish, 1),
    (5, 240, 40, divisible(240 / 4), hard_swish, 1),
    (5, 120, 48, divisible(120 / 4), hard_swish, 1),
    (5, 144, 48, divisible(144 / 4), hard_swish, 1),
    (5, 288, 96, divisible(288 / 4), hard_swish, 2),
    (5, 576, 96, divisible(576 / 4), hard_swish, 1),
    (5, 576, 96, divisible(576 / 4), hard_swish, 1),
)


class MobileNetV2(Backbone):
    """MobileNetV2 with width multiplier 1.

    Parts: `stem`, `stem_norm`, `block_0` ... `block_16`, `top`, `top_norm`, `head`.
    """

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        blocks, inputs = [], 32
        for count, channels, stride, expansion in _V2_STAGES:
            for index in range(count):
                shape = dict(expanded=inputs * expansion, features=channels, kernel=3)
                blocks.append(shape | dict(stride=1 if index else stride, act=nn.relu6))
                inputs = channels
        x = self.inverted_residuals(x, train, 32, blocks, 1280, nn.relu6)
        return self.leave(global_pool(x), train, features)


class MobileNetV3Small(Backbone):
    """MobileNetV3-Small with width multiplier 1.

    Parts: `stem`, `stem_norm`, `block_0` ... `block_10`, `top`, `top_norm`, `hidden` (a dense layer after
    pooling, which outputs the features), `head`.
    """

    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        names = ("kernel", "expanded", "features", "squeeze", "act", "stride")
        blocks = [dict(zip(names, block, strict=True), gate=hard_sigmoid) for block in _V3_SMALL]
        x = global_pool(self.inverted_residuals(x, train, 16, blocks, 576, hard_swish))
        x = hard_swish(nn.Dense(1024, dtype=self.dtype, name="hidden")(x))
        return self.leave(x, train, features)
