"""The custom CNNs that the FER2013 field trains from scratch."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax.models.layers import (
    BatchNorm,
    Conv,
    global_pool,
    he_normal,
    max_pool_2x2,
    relu_pool,
    require_side,
)


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
        for width, rate in zip(self.widths, self.block_dropout, strict=True):
            x = norm()(nn.elu(Conv(width, dtype=self.dtype)(x)))
            x = norm(tail=max_pool_2x2)(nn.elu(Conv(width, dtype=self.dtype)(x)))
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
        require_side(x, 2 ** len(self.widths))
        x = self._blocks(x.astype(self.dtype), train, *self._shape())
        x = global_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, kernel_init=he_normal)(x)
        x = BatchNorm(train, self.axis_name, nn.relu, dtype=self.dtype)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=jnp.float32)(x.astype(jnp.float32))

    def _shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Channels and convolutions of each block."""
        depths = self.depths or (2,) * len(self.widths)
        require_one_each(depths=depths, widths=self.widths)
        return self.widths, depths

    def _blocks(self, x: jnp.ndarray, train: bool, widths: tuple, depths: tuple) -> jnp.ndarray:
        for width, depth in zip(widths, depths, strict=True):
            for tail in (nn.relu,) * (depth - 1) + (relu_pool,):
                x = Conv(width, use_bias=False, dtype=self.dtype)(x)
                x = BatchNorm(train, self.axis_name, tail, dtype=self.dtype)(x)
        return x


class CnnColumns(CnnRelu):
    """`CnnRelu` that splits into columns after its first blocks; their probabilities are averaged.

    A multi-column network (Ciresan et al. 2012, arXiv:1202.2745) whose columns share what they learn alike
    (Lee et al. 2015, arXiv:1511.06314). In training each column answers for itself, so that they stay as
    different as networks trained apart; the shared blocks get the mean of their gradients. Each column is
    a `CnnRelu` of the blocks that are not shared, under `column_0`, `column_1` ... of the parameters.

    Attributes:
      columns: how many.
      shared: blocks before the split; 0 for columns that share nothing but the faces.
    """

    columns: int = 3
    shared: int = 2

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False) -> jnp.ndarray:
        """Normalised faces float [B, S, S, C] -> logits float32.

        Returns:
          In training the logits of each column, [B, columns, num_classes]; otherwise the logarithm of the
          mean probabilities, [B, num_classes].

        Raises:
          ValueError: S is less than 2 to the number of blocks, which halve it, or no block is left to the
            columns.
        """
        require_side(x, 2 ** len(self.widths))
        widths, depths = self._shape()
        if not 0 <= self.shared < len(widths) or self.columns < 1:
            raise ValueError(
                f"shared={self.shared} and columns={self.columns} for {len(widths)} blocks: expected at "
                "least one column, and fewer blocks shared than there are"
            )
        x = self._blocks(x.astype(self.dtype), train, widths[: self.shared], depths[: self.shared])
        # The same values; the gradient, a sum over the columns, becomes their mean.
        x = x / self.columns + jax.lax.stop_gradient(x - x / self.columns)
        column = functools.partial(
            CnnRelu,
            num_classes=self.num_classes,
            widths=widths[self.shared :],
            depths=depths[self.shared :],
            hidden=self.hidden,
            dropout=self.dropout,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        logits = jnp.stack([column(name=f"column_{i}")(x, train) for i in range(self.columns)], axis=1)
        if train:
            return logits
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(self.columns)
