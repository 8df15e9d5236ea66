"""Preprocessing of faces for a network, the same in training, evaluation, and inference."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data import augment, transforms

Levels = jax.typing.ArrayLike | Sequence[float]  # pixel statistics in [0, 1], of all channels or one for each


def normalize(x: jnp.ndarray, mean: Levels, std: Levels, channels: int) -> jnp.ndarray:
    """Normalizes faces float32 [B, S, S, C] in [0, 1]; gray ones are repeated to `channels` channels.

    Raises:
      ValueError: the faces have other channels than the model takes.
    """
    if x.shape[-1] != channels:
        if x.shape[-1] != 1:
            raise ValueError(
                f"the faces have {x.shape[-1]} channels and the model takes {channels}: "
                "set config.model.channels=3 or use gray data"
            )
        x = jnp.repeat(x, channels, axis=-1)
    return (x - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def make_input(
    *,
    size: int,
    mean: Levels,
    std: Levels,
    channels: int,
    fill: str = "reflect",
    interpolation: str = "bilinear",
) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """Returns the evaluation-time preprocessing function.

    prepare(images uint8 [B, H, W, C], affine float32 [B, 2, 3] or None for the whole of each image) ->
    float32 [B, size, size, channels].

    Args:
      size: side of the network's input.
      mean, std: pixel statistics in [0, 1] that normalize it.
      channels: of the network's input.
      fill: what lies outside the image where the map reaches there.
      interpolation: as `transforms.resample` takes it.
    """

    def prepare(images, affine):
        if affine is None and images.shape[1:3] == (size, size):
            return normalize(images * augment.PIXEL, mean, std, channels)
        if affine is None:
            affine = augment.identity_affine(len(images))
        x = transforms.resample(images, affine, size, fill, np.mean(mean), interpolation)
        return normalize(x, mean, std, channels)

    return prepare


def make_forward(
    model: nn.Module, **normalization: Any
) -> Callable[[Any, jax.Array, jax.Array | None], jax.Array]:
    """Returns the evaluation pass of a network.

    forward(variables, images uint8 [B, H, W, C], affine float32 [B, 2, 3] or None) -> logits float32 [B, K].
    It multiplies float32 without rounding the factors, which a GPU and a TPU do by default.

    Args:
      model: the network.
      **normalization: the arguments of `make_input`.
    """
    prepare = make_input(**normalization)

    def forward(variables, images, affine) -> Any:
        with jax.default_matmul_precision("highest"):
            return model.apply(variables, prepare(images, affine), train=False)

    return forward
