"""The custom CNNs: the two that the FER2013 field trains from scratch, and a residual one."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import DropPath
from fer_jax.models.layers import BatchNorm, Conv, FeatureMap, SqueezeExcite, he_normal, require_side
from fer_jax.models.ops.pooling import global_pool, max_pool_2x2, relu_pool


def require_one_each(**attributes: tuple) -> None:
    """Refuses attributes that differ in the number of blocks they speak of.

    Raises:
      ValueError: their lengths differ.
    """
    if len({len(value) for value in attributes.values()}) > 1:
        given = " and ".join(f"{name}={value}" for name, value in attributes.items())
        raise ValueError(f"{given}: expected one number for each block in both")


class CnnElu(nn.Module):
    """Convolutions with ELU before BatchNorm, and a flattened dense head.

    Per block: (3x3 convolution, ELU, BatchNorm) twice, 2x2 max-pool, dropout. Then Dense, ELU,
    BatchNorm, dropout and the classifier. After the ELU networks common in FER2013 notebooks. The dense
    layer fixes the input size at initialisation.

    Attributes:
      num_classes: width of the logits.
      widths: channels of each block.
      block_dropout: dropout rate after each block, one a block.
      hidden: width of the dense layer.
      dropout: dropout rate before the classifier.
      dtype: type of the computation; parameters and statistics stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics.
    """

    num_classes: int = 7
    widths: tuple[int, ...] = (64, 128, 256)
    block_dropout: tuple[float, ...] = (0.4, 0.4, 0.5)
    hidden: int = 128
    dropout: float = 0.6
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False) -> jnp.ndarray:
        """Normalised faces float [B, S, S, C] -> logits float32 [B, num_classes].

        Raises:
          ValueError: S is less than 2 to the number of blocks, which halve it.
        """

        def norm(**kwargs):
            return BatchNorm(train, self.axis_name, dtype=self.dtype, **kwargs)

        x = x.astype(self.dtype)
        require_side(x, 2 ** len(self.widths))
        require_one_each(block_dropout=self.block_dropout, widths=self.widths)
        for i, (width, rate) in enumerate(zip(self.widths, self.block_dropout, strict=True), 1):
            x = norm()(nn.elu(Conv(width, dtype=self.dtype)(x)))
            x = nn.elu(Conv(width, dtype=self.dtype)(x))
            is_last = i == len(self.widths)
            x = max_pool_2x2(FeatureMap()(norm()(x))) if is_last else norm(tail=max_pool_2x2)(x)
            x = nn.Dropout(rate, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        x = norm()(nn.elu(nn.Dense(self.hidden, dtype=self.dtype, kernel_init=he_normal)(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=jnp.float32)(x.astype(jnp.float32))


class CnnRelu(nn.Module):
    """A small VGG: blocks of Conv-BN-ReLU and max-pool, global average pooling and a dense head.

    Per block: (3x3 convolution without bias, BatchNorm, ReLU) `depths` times, 2x2 max-pool. Then global
    average pooling, dropout, Dense, BatchNorm, ReLU, dropout and the classifier. Takes any input size.

    Attributes:
      num_classes: width of the logits.
      widths: channels of each block.
      depths: convolutions of each block; None for two.
      hidden: width of the dense layer.
      dropout: dropout rate before the dense layer and before the classifier.
      dtype: type of the computation; parameters and statistics stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics.
    """

    num_classes: int = 7
    widths: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] | None = None
    hidden: int = 128
    dropout: float = 0.4
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False) -> jnp.ndarray:
        """Normalised faces float [B, S, S, C] -> logits float32 [B, num_classes].

        Raises:
          ValueError: S is less than 2 to the number of blocks, which halve it.
        """

        def norm(tail):
            return BatchNorm(train, self.axis_name, tail, dtype=self.dtype)

        x = x.astype(self.dtype)
        require_side(x, 2 ** len(self.widths))
        depths = self.depths or (2,) * len(self.widths)
        require_one_each(depths=depths, widths=self.widths)
        for i, (width, depth) in enumerate(zip(self.widths, depths, strict=True), 1):
            last = nn.relu if i == len(depths) else relu_pool
            for tail in (nn.relu,) * (depth - 1) + (last,):
                x = norm(tail)(Conv(width, use_bias=False, dtype=self.dtype)(x))
        x = global_pool(max_pool_2x2(FeatureMap()(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, kernel_init=he_normal)(x)
        x = norm(nn.relu)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=jnp.float32)(x.astype(jnp.float32))


class CnnResidual(nn.Module):
    """A pre-activation residual network for faces of about 48 pixels, pooled where `CnnRelu` pools.

    Per stage: a 3x3 convolution to its width; `blocks` times a branch, that is (BatchNorm, ReLU, 3x3
    convolution) twice and squeeze-excitation, which is added to what came in; BatchNorm, ReLU, 2x2 max-pool.
    Then global average pooling, dropout and the classifier. Within a stage the shortcuts are identities and
    nothing acts on the sums: full pre-activation (He et al. 2016, arXiv:1603.05027, figure 4e). No
    convolution has a stride. Takes any input size.

    Attributes:
      num_classes: width of the logits.
      widths: channels of each stage.
      blocks: residual branches of each stage.
      squeeze: channels divided by this, but at least one, are the bottleneck of the squeeze-excitation; 0 for
        none.
      drop_path: rate at which the last branch is skipped, an image at a time; the others in proportion to
        their place, the first never (Huang et al. 2016, arXiv:1603.09382).
      dropout: dropout rate before the classifier.
      dtype: type of the computation; parameters and statistics stay float32.
      axis_name: mapped axis over which BatchNorm averages its statistics.
    """

    num_classes: int = 7
    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (0, 1, 1, 1)
    squeeze: int = 8
    drop_path: float = 0.0
    dropout: float = 0.2
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False) -> jnp.ndarray:
        """Normalised faces float [B, S, S, C] -> logits float32 [B, num_classes].

        Raises:
          ValueError: S is less than 2 to the number of stages, which halve it.
        """

        def conv(width):
            return Conv(width, use_bias=False, dtype=self.dtype)

        def norm(tail):
            return BatchNorm(train, self.axis_name, tail, dtype=self.dtype)

        x = x.astype(self.dtype)
        require_side(x, 2 ** len(self.widths))
        require_one_each(blocks=self.blocks, widths=self.widths)
        number, last = 0, max(1, sum(self.blocks) - 1)
        for i, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), 1):
            x = conv(width)(x)
            for _ in range(blocks):
                y = conv(width)(norm(nn.relu)(x))
                y = conv(width)(norm(nn.relu)(y))
                if self.squeeze:
                    y = SqueezeExcite(max(1, width // self.squeeze), dtype=self.dtype)(y)
                x = x + DropPath(self.drop_path * number / last, train)(y)
                number += 1
            x = norm(nn.relu if i == len(self.widths) else relu_pool)(x)
        x = global_pool(max_pool_2x2(FeatureMap()(x))).astype(jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)
