"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), MobileNetV3-Small (Howard 2019, arXiv:1905.02244)."""

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import Backbone, InvertedResidual, divisible, hard_sigmoid, hard_swish
from fer_jax.models.layers import FeatureMap
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
# Kernel, expanded channels, channels, squeeze-excitation, activation, stride.
_V3_SMALL = (
    (3, 16, 16, True, nn.relu, 2),
    (3, 72, 24, False, nn.relu, 2),
    (3, 88, 24, False, nn.relu, 1),
    (5, 96, 40, True, hard_swish, 2),
    (5, 240, 40, True, hard_swish, 1),
    (5, 240, 40, True, hard_swish, 1),
    (5, 120, 48, True, hard_swish, 1),
    (5, 144, 48, True, hard_swish, 1),
    (5, 288, 96, True, hard_swish, 2),
    (5, 576, 96, True, hard_swish, 1),
    (5, 576, 96, True, hard_swish, 1),
)


class MobileNetV2(Backbone):
    """MobileNetV2 at width 1.

    Parts: `stem`, `stem_norm`, `block_0` ... `block_16`, `top`, `top_norm`, `head`.
    """

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        blocks = [
            (channels, stride if first == 0 else 1, expansion)
            for count, channels, stride, expansion in _V2_STAGES
            for first in range(count)
        ]
        layers = self.layers(train)
        x = layers["norm"](tail=nn.relu6, name="stem_norm")(
            layers["conv"](32, 3, 2, name="stem")(self.enter(x))
        )
        for i, (channels, stride, expansion) in enumerate(blocks):
            name = f"block_{i}"
            x = InvertedResidual(
                **self.layers(train, name),
                expanded=x.shape[-1] * expansion,
                features=channels,
                kernel=3,
                stride=stride,
                act=nn.relu6,
                drop_path=self.drop_path * i / len(blocks),
                train=train,
                name=name,
            )(x)
        x = layers["norm"](tail=nn.relu6, name="top_norm")(layers["conv"](1280, 1, name="top")(x))
        return self.leave(global_pool(FeatureMap()(x)), train, features)


class MobileNetV3Small(Backbone):
    """MobileNetV3-Small at width 1.

    Parts: `stem`, `stem_norm`, `block_0` ... `block_10`, `top`, `top_norm`, `hidden` (a dense layer after the
    pooling, whose output are the features), `head`.
    """

    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        layers = self.layers(train)
        x = layers["norm"](tail=hard_swish, name="stem_norm")(
            layers["conv"](16, 3, 2, name="stem")(self.enter(x))
        )
        for i, (kernel, expanded, channels, squeeze, act, stride) in enumerate(_V3_SMALL):
            name = f"block_{i}"
            x = InvertedResidual(
                **self.layers(train, name),
                expanded=expanded,
                features=channels,
                kernel=kernel,
                stride=stride,
                act=act,
                squeeze=divisible(expanded / 4) if squeeze else 0,
                gate=hard_sigmoid,
                drop_path=self.drop_path * i / len(_V3_SMALL),
                train=train,
                name=name,
            )(x)
        x = layers["norm"](tail=hard_swish, name="top_norm")(layers["conv"](576, 1, name="top")(x))
        x = global_pool(FeatureMap()(x))
        x = hard_swish(nn.Dense(1024, dtype=self.dtype, name="hidden")(x))
        return self.leave(x, train, features)
