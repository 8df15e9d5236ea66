"""Preprocesses faces for a network; shared by training, evaluation, and inference."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data import augment, transforms

Levels = jax.typing.ArrayLike | Sequence[float]  # pixel statistics in [0, 1], shared or per channel


def normalize(x: jnp.ndarray, mean: Levels, std: Levels, channels: int) -> jnp.ndarray:
    """Normalizes faces float32 [B, S, S, C] in [0, 1]; repeats gray faces to `channels` channels.

    Raises:
      ValueError: the faces have another number of channels than the model takes.
    """
    if x.shape[-1] != channels:
        if x.shape[-1] != 1:
            raise ValueError(
                f"the faces have {x.shape[-1]} channels, but the model takes {channels}: "
                "set config.model.channels=3 or use gray data"
            )
        x = jnp.broadcast_to(x, (*x.shape[:-1], channels))
    return (x - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessing:
    """What prepares faces uint8 [B, H, W, C] for a network: float32 [B, size, size, channels].

    Attributes:
      size: side of the network's input.
      mean, std: pixel statistics in [0, 1] for normalization.
      channels: channels of the network's input.
      fill, interpolation: as in `transforms.resample`.
    """

    size: int
    mean: Levels
    std: Levels
    channels: int
    fill: str = "reflect"
    interpolation: str = "bilinear"

    def __call__(self, images: jax.Array, affine: jax.Array | None) -> jax.Array:
        """Prepares faces for evaluation, by maps float32 [B, 2, 3] or None for the identity."""
        size, how = self.size, (self.fill, np.mean(self.mean), self.interpolation)
        if affine is None and images.shape[1:3] == (size, size):
            x = images * augment.PIXEL
        elif affine is None and max(images.shape[1:3]) <= size:
            x = transforms.enlarge(images, size, *how)
        else:
            maps = augment.identity_affine(len(images)) if affine is None else affine
            x = transforms.resample(images, maps, size, *how)
        return normalize(x, self.mean, self.std, self.channels)

    def augmented(self, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Returns the faces and targets of a batch of `TrainStream`, by `transforms.apply`."""
        x, targets = transforms.apply(batch, self.size, self.fill, np.mean(self.mean), self.interpolation)
        return normalize(x, self.mean, self.std, self.channels), targets


def make_forward(
    model: nn.Module, **normalization: Any
) -> Callable[[Any, jax.Array, jax.Array | None], jax.Array]:
    """Returns the forward pass for evaluation.

    forward(variables, images uint8 [B, H, W, C], affine float32 [B, 2, 3] or None) -> logits float32 [B, K].
    Products have full float32 precision, which is not the default on GPU and TPU. `normalization` are the
    attributes of `Preprocessing`.
    """
    prepare = Preprocessing(**normalization)

    def forward(variables, images, affine) -> Any:
        with jax.default_matmul_precision("highest"):
            return model.apply(variables, prepare(images, affine), train=False)

    return forward
