"""CNNs to train from scratch: two architectures common in work on FER2013, and a residual network."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import DropPath
from fer_jax.models.layers import BatchNorm, Conv, FeatureMap, SqueezeExcite, he_normal, require_side
from fer_jax.models.ops.pooling import global_pool, max_pool_2x2, relu_pool


class Cnn(nn.Module):
    """Base class of the CNNs, which map normalized faces float [B, S, S, C] to logits float32 [B, K].

    Attributes:
      num_classes: number of logits, K.
      widths: channels of each block; every block halves S.
      dropout: dropout rate before the classifier.
      dtype: dtype of the computation; parameters and statistics stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics.
    """

    num_classes: int = 7
    widths: tuple[int, ...] = (64, 128, 256)
    dropout: float = 0.4
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def norm(self, train: bool, **kwargs) -> BatchNorm:
        return BatchNorm(train, self.axis_name, dtype=self.dtype, **kwargs)

    def enter(self, x: jnp.ndarray, **each: tuple) -> jnp.ndarray:
        """Validates the input, and attributes with one value per block; returns the input in `dtype`.

        Raises:
          ValueError: S is less than 2 ** len(widths), or the length of an attribute differs from `widths`.
        """
        require_side(x, 2 ** len(self.widths))
        for name, value in each.items():
            if len(value) != len(self.widths):
                raise ValueError(
                    f"{name}={value} and widths={self.widths}: expected one number for each block in both"
                )
        return x.astype(self.dtype)

    def drop(self, x: jnp.ndarray, train: bool) -> jnp.ndarray:
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class CnnElu(Cnn):
    """A CNN with ELU before BatchNorm and a dense layer on flattened features.

    Per block: (3x3 convolution, ELU, BatchNorm) twice, 2x2 max-pool, dropout. Then Dense, ELU, BatchNorm,
    dropout, and the classifier, as in the ELU networks of FER2013 notebooks. The dense layer fixes the input
    size at initialization.

    Attributes:
      block_dropout: dropout rate after each block.
      hidden: features of the dense layer.
    """

    block_dropout: tuple[float, ...] = (0.4, 0.4, 0.5)
    hidden: int = 128
    dropout: float = 0.6

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False) -> jnp.ndarray:
        x = self.enter(x, block_dropout=self.block_dropout)
        for i, (width, rate) in enumerate(zip(self.widths, self.block_dropout, strict=True), 1):
            x = self.norm(train)(nn.elu(Conv(width, dtype=self.dtype)(x)))
            x = nn.elu(Conv(width, dtype=self.dtype)(x))
            if i == len(self.widths):
                x = max_pool_2x2(FeatureMap()(self.norm(train)(x)))
            else:
                x = self.norm(train, tail=max_pool_2x2)(x)
            x = nn.Dropout(rate, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        x = nn.elu(nn.Dense(self.hidden, dtype=self.dtype, kernel_init=he_normal)(x))
        x = self.drop(self.norm(train)(x), train)
        return nn.Dense(self.num_classes)(x.astype(jnp.float32))


class CnnRelu(Cnn):
    """A small VGG: blocks of Conv-BN-ReLU and max-pool, global average pooling, and a dense head.

    Per block: (3x3 convolution without bias, BatchNorm, ReLU) `depths` times, 2x2 max-pool. Then global
    average pooling, dropout, Dense, BatchNorm, ReLU, dropout, and the classifier. Supports any input size.

    Attributes:
      depths: number of convolutions of each block; None for two.
      hidden: features of the dense layer.
    """

    depths: tuple[int, ...] | None = None
    hidden: int = 128

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False) -> jnp.ndarray:
        depths = self.depths or (2,) * len(self.widths)
        x = self.enter(x, depths=depths)
        for i, (width, depth) in enumerate(zip(self.widths, depths, strict=True), 1):
            last = nn.relu if i == len(depths) else relu_pool
            for tail in (nn.relu,) * (depth - 1) + (last,):
                x = self.norm(train, tail=tail)(Conv(width, use_bias=False, dtype=self.dtype)(x))
        x = self.drop(global_pool(max_pool_2x2(FeatureMap()(x))), train)
        x = nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, kernel_init=he_normal)(x)
        x = self.drop(self.norm(train, tail=nn.relu)(x), train)
        return nn.Dense(self.num_classes)(x.astype(jnp.float32))


class CnnResidual(Cnn):
    """A pre-activation residual network for faces of about 48 pixels.

    Per stage: a 3x3 convolution to the stage's width; `blocks` residual branches, each (BatchNorm, ReLU, 3x3
    convolution) twice and squeeze-excitation; BatchNorm, ReLU, 2x2 max-pool. Then global average pooling,
    dropout, and the classifier. Shortcuts are identities without an activation after the sum (full
    pre-activation: He et al. 2016, arXiv:1603.05027, figure 4e). All convolutions have stride 1. Supports any
    input size.

    Attributes:
      blocks: number of residual branches of each stage.
      squeeze: reduction ratio of the squeeze-excitation; 0 for none.
      drop_path: rate at which the last branch is skipped per image; it grows linearly from 0 for the first
        (stochastic depth: Huang et al. 2016, arXiv:1603.09382).
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (0, 1, 1, 1)
    squeeze: int = 8
    drop_path: float = 0.0
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False) -> jnp.ndarray:
        def conv(x, width):
            return Conv(width, use_bias=False, dtype=self.dtype)(x)

        x = self.enter(x, blocks=self.blocks)
        number, last = 0, max(1, sum(self.blocks) - 1)
        for i, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), 1):
            x = conv(x, width)
            for _ in range(blocks):
                y = conv(self.norm(train, tail=nn.relu)(x), width)
                y = conv(self.norm(train, tail=nn.relu)(y), width)
                if self.squeeze:
                    y = SqueezeExcite(max(1, width // self.squeeze), dtype=self.dtype)(y)
                x = x + DropPath(self.drop_path * number / last if train else 0.0)(y)
                number += 1
            x = self.norm(train, tail=nn.relu if i == len(self.widths) else relu_pool)(x)
        x = self.drop(global_pool(max_pool_2x2(FeatureMap()(x))).astype(jnp.float32), train)
        return nn.Dense(self.num_classes, name="head")(x)
