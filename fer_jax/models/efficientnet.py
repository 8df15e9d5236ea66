"""EfficientNet (Tan & Le 2019, arXiv:1905.11946)."""

import math

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import Backbone, InvertedResidual, divisible
from fer_jax.models.layers import FeatureMap, global_pool

# B0's stages: blocks, channels, kernel, stride, expansion.
_STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class EfficientNetB0(Backbone):
    """EfficientNet-B0, and by its rule of scaling the larger ones.

    Parts: `stem`, `stem_norm`, `block_0` ... , `top`, `top_norm`, `head`.

    Attributes:
      width: factor on the channels.
      depth: factor on the blocks of a stage.
      cut: how many blocks there are at most; a network that is cut has no `top` either, and its features are
        the mean over space of the last block's. None for the whole network.
    """

    width: float = 1.0
    depth: float = 1.0
    cut: int | None = None

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        blocks = [
            (divisible(channels * self.width), kernel, stride if first == 0 else 1, expansion)
            for count, channels, kernel, stride, expansion in _STAGES
            for first in range(math.ceil(count * self.depth))
        ][: self.cut]
        layers = self.layers(train)
        x = layers["conv"](divisible(32 * self.width), 3, 2, name="stem")(self.enter(x))
        x = layers["norm"](tail=nn.silu, name="stem_norm")(x)
        for i, (channels, kernel, stride, expansion) in enumerate(blocks):
            name, width = f"block_{i}", x.shape[-1]
            x = InvertedResidual(
                **self.layers(train, name),
                expanded=width * expansion,
                features=channels,
                kernel=kernel,
                stride=stride,
                act=nn.silu,
                squeeze=max(1, width // 4),
                squeeze_act=nn.silu,
                drop_path=self.drop_path * i / len(blocks),
                train=train,
                name=name,
            )(x)
        if self.cut is None:
            x = layers["conv"](divisible(1280 * self.width), 1, name="top")(x)
            x = layers["norm"](tail=nn.silu, name="top_norm")(x)
        return self.leave(global_pool(FeatureMap()(x)), train, features)


class EfficientNetB2(EfficientNetB0):
    """EfficientNet-B2."""

    width: float = 1.1
    depth: float = 1.2
    dropout: float = 0.3


class EfficientNetB4(EfficientNetB0):
    """EfficientNet-B4."""

    width: float = 1.4
    depth: float = 1.8
    dropout: float = 0.4
