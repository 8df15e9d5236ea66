"""EfficientNet (Tan & Le 2019, arXiv:1905.11946), and EfficientNet-Lite for phones."""

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import Backbone, divisible
from fer_jax.models.ops.pooling import global_pool

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
    """EfficientNet-B0, and with other factors the larger networks of the family.

    Parts: `stem`, `stem_norm`, `block_0` ..., `top`, `top_norm`, `head`.

    Attributes:
      width: factor on the number of channels.
      depth: factor on the number of blocks of each stage.
      cut: truncates the network after this many blocks, without `top`; None for the entire network.
    """

    width: float = 1.0
    depth: float = 1.0
    cut: int | None = None

    lite: ClassVar[bool] = False

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        depths = [math.ceil(count * self.depth) for count, *_ in _STAGES]
        if self.lite:
            depths[0], depths[-1] = _STAGES[0][0], _STAGES[-1][0]
        ends, act = 1.0 if self.lite else self.width, nn.relu6 if self.lite else nn.silu
        stem = inputs = divisible(32 * ends)
        blocks = []
        for depth, (_, channels, kernel, stride, expansion) in zip(depths, _STAGES, strict=True):
            for index in range(depth):
                blocks.append(
                    dict(
                        expanded=inputs * expansion,
                        features=divisible(channels * self.width),
                        kernel=kernel,
                        stride=1 if index else stride,
                        act=act,
                        squeeze=0 if self.lite else max(1, inputs // 4),
                        squeeze_act=act,
                    )
                )
                inputs = blocks[-1]["features"]
        top = divisible(1280 * ends) if self.cut is None else 0
        x = self.inverted_residuals(x, train, stem, blocks[: self.cut], top, act)
        return self.leave(global_pool(x), train, features)


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


class EfficientNetLite0(EfficientNetB0):
    """EfficientNet-Lite0: no squeeze-excitation, and ReLU6 (tensorflow/tpu, efficientnet/lite).

    The stem, the top, and the depths of the first and last stage are not scaled.
    """

    lite: ClassVar[bool] = True


class EfficientNetLite2(EfficientNetLite0):
    """EfficientNet-Lite2."""

    width: float = 1.1
    depth: float = 1.2
    dropout: float = 0.3
