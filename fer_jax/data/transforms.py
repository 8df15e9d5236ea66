"""Augmentation on the device: one resample and pixel operations, inside the jitted step.

`apply` applies the parameters of `augment.draw` in a fixed order: one affine resample from the native pixels
to the model's input size, then color, erasing, mixup, and cutmix. `augment.identity` changes nothing, so
evaluation shares the code. `augment` defines the coordinates.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.augment import FILLS, INTERPOLATIONS, PIXEL, identity_affine


def apply(
    batch: dict[str, jax.Array],
    size: int,
    fill: str = "reflect",
    mean: jax.typing.ArrayLike = 0.5,
    interpolation: str = "bilinear",
) -> tuple[jax.Array, jax.Array]:
    """Augments a batch: resample, color, erasing, mixing.

    Skips operations whose parameters are not in the batch; an evaluation batch has only 'affine'.

    Args:
      batch: 'image' uint8 [B, H, W, C], 'target' float32 [B, K], 'affine' and, optionally, 'color', 'erase',
        and 'mix' from `augment.draw`.
      size: side of the square output.
      fill: values outside the image, one of `augment.FILLS`.
      mean: value in [0, 1] of erased boxes and the constant fill: the mean of the data, so that both are 0
        after normalization.
      interpolation: as in `resample`.

    Returns:
      Images float32 [B, size, size, C] in [0, 1] and targets float32 [B, K].

    Raises:
      ValueError: the batch to mix has an odd size, or as `resample`.
    """
    x = resample(batch["image"], batch["affine"], size, fill, mean, interpolation)
    targets = batch["target"]
    if "color" in batch:
        x = color(x, batch["color"])
    if "erase" in batch:
        x = erase(x, batch["erase"], mean)
    if "mix" in batch:
        x, targets = mix(x, targets, batch["mix"])
    return x, targets


def resample(
    images: jax.Array,
    affine: jax.typing.ArrayLike,
    size: int,
    fill: str = "reflect",
    value: jax.typing.ArrayLike = 0.5,
    interpolation: str = "bilinear",
) -> jax.Array:
    """Resamples images by affine maps to the output size.

    The identity and a flip at equal size return the exact pixels times `augment.PIXEL`. If the image shrinks
    by a factor of 1.5 or more, each output pixel is the mean of several samples (2 x 2 at half size) to avoid
    aliasing.

    Args:
      images: uint8 [B, H, W, C] with sides of at least 2.
      affine: float32 [B, 2, 3], from output to input coordinates, see `augment`.
      size: side of the square output; other shapes are stretched.
      fill: 'reflect' mirrors at the edge and repeats the outer pixel (cv2.BORDER_REFLECT, SciPy's 'reflect');
        'constant' puts `value` around the image (cv2.BORDER_CONSTANT).
      value: in [0, 1].
      interpolation: 'bilinear', or 'bicubic' (Keys 1981 with a = -1/2, as Pillow), clipped to [0, 1].

    Returns:
      float32 [B, size, size, C] in [0, 1].

    Raises:
      ValueError: invalid dtype, rank, side, fill, or interpolation.
    """
    if images.dtype != jnp.uint8 or images.ndim != 4 or min(images.shape[1:3]) < 2:
        raise ValueError(
            f"resample takes uint8 images [B, H, W, C] of 2 x 2 pixels or more, got {images.dtype} "
            f"{list(images.shape)}"
        )
    if fill not in FILLS:
        raise ValueError(f"fill={fill!r}: expected one of {', '.join(FILLS)}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation={interpolation!r}: expected one of {', '.join(INTERPOLATIONS)}")
    batch_size, height, width, channels = images.shape
    samples = max(1, math.floor(max(height, width) / size + 0.5))
    side = size * samples
    x, y = _input_coordinates(affine, side, height, width)
    kernel = _linear if interpolation == "bilinear" else _cubic
    rows, columns = kernel(y, height, fill), kernel(x, width, fill)
    # take_along_axis keeps the batch axis, so that a sharded batch needs no communication.
    flat = images.reshape(batch_size, height * width, channels)

    def pixels(row, column):
        index = (row * width + column).reshape(batch_size, side * side, 1)
        found = jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds")
        return found.reshape(batch_size, side, side, channels).astype(jnp.float32)

    out: Any = sum(
        down[..., None] * sum(across[..., None] * pixels(row, column) for column, across in columns)
        for row, down in rows
    )
    out *= PIXEL
    if fill == "constant":
        within: Any = sum(weight for _, weight in rows) * sum(weight for _, weight in columns)
        out += value * (1 - within[..., None])
    if interpolation == "bicubic":
        out = jnp.clip(out, 0, 1)
    if samples > 1:
        out = out.reshape(batch_size, size, samples, size, samples, channels).mean(axis=(2, 4))
    return out


def enlarge(
    images: jax.Array,
    size: int,
    fill: str = "reflect",
    value: jax.typing.ArrayLike = 0.5,
    interpolation: str = "bilinear",
) -> jax.Array:
    """Returns `resample` by the identity for images with sides of at most `size`, computed by convolutions.

    Convolutions are faster than gathering pixels, and every export format has them.
    """
    x = images.astype(jnp.float32) * PIXEL - value
    for _ in range(2):
        # One output row per kernel; they come out as channels, so that the columns are the next rows.
        batch_size, length, width, channels = x.shape
        weights = _identity_weights(length, size, fill, interpolation)
        kernel: Any = np.kron(weights, np.eye(channels, dtype=np.float32))
        kernel = kernel.reshape(length, 1, channels, -1)
        dimensions, precision = ("NHWC", "HWIO", "NHWC"), jax.lax.Precision.HIGHEST
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=dimensions, precision=precision
        )
        x = x.reshape(batch_size, width, size, channels)
    x += value
    return jnp.clip(x, 0, 1) if interpolation == "bicubic" else x


def color(x: jax.Array, parameters: jax.Array) -> jax.Array:
    """Applies gamma, then contrast about the image's mean, then brightness; clips to [0, 1].

    `parameters` float32 [B, 3] are the brightness offset, the contrast factor, and gamma.
    """
    brightness, contrast, gamma = (parameters[:, i, None, None, None] for i in range(3))
    x = jnp.where(gamma == 1, x, jnp.power(x, gamma))
    # Written as a difference, so that a contrast of 1 keeps the exact pixels.
    x = x + ((contrast - 1) * (x - x.mean(axis=(1, 2, 3), keepdims=True)) + brightness)
    return jnp.clip(x, 0, 1)


def erase(x: jax.Array, box: jax.Array, value: jax.typing.ArrayLike) -> jax.Array:
    """Sets the pixels whose center is in `box` float32 [B, 4] (y0, x0, y1, x1 in [0, 1]) to `value`."""
    return jnp.where(_inside(box, x.shape[1]), value, x)


def mix(x: jax.Array, targets: jax.Array, parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Applies mixup and cutmix to neighbors: face i with face i + 1 for even i, i - 1 for odd i.

    Neighbors in a shuffled batch are random pairs, and unlike a permutation they stay on one device.

    Args:
      x: float32 [B, S, S, C] with B even.
      targets: float32 [B, K].
      parameters: float32 [B, 5], weight of the face, then the box y0, x0, y1, x1 of its partner.

    Returns:
      x and targets, mixed; cutmix weights targets by exact pixel counts.

    Raises:
      ValueError: B is odd.
    """
    if x.shape[0] % 2:
        raise ValueError(
            f"mixup and cutmix need pairs, but the batch on a device has {x.shape[0]} faces, an odd "
            "number: choose a batch size that is a multiple of twice the number of devices, or disable "
            "both"
        )
    share, inside = parameters[:, 0, None, None, None], _inside(parameters[:, 1:], x.shape[1])
    own = jnp.where(inside, 0, share)
    x = own * x + (1 - own) * _partner(x)
    weight = own.mean(axis=(1, 2, 3))[:, None]
    return x, weight * targets + (1 - weight) * _partner(targets)


def _partner(x: jax.Array) -> jax.Array:
    """Swaps each pair of neighbors in x [B, ...]."""
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _input_coordinates(affine: jax.typing.ArrayLike, side: int, height: int, width: int):
    """Returns the input coordinates x and y of the outputs, in pixels, float32 [B, side, side]."""
    # Twice the distance of the outputs from the center, in pixels: integers keep the identity exact.
    steps = jnp.arange(1 - side, side, 2, dtype=jnp.float32)
    a = jnp.asarray(affine)[:, :, :, None, None]
    along_x, along_y = steps[None, None, :], steps[None, :, None]
    x = (a[:, 0, 0] * along_x + a[:, 0, 1] * along_y) * (width / (2 * side))
    y = (a[:, 1, 0] * along_x + a[:, 1, 1] * along_y) * (height / (2 * side))
    return x + (a[:, 0, 2] * (width / 2) + (width - 1) / 2), (
        y + (a[:, 1, 2] * (height / 2) + (height - 1) / 2)
    )


def _identity_weights(length: int, size: int, fill: str, interpolation: str) -> np.ndarray:
    """Returns float32 [length, size], the weights of an axis's pixels in each output of `enlarge`."""
    with jax.ensure_compile_time_eval():
        x, _ = _input_coordinates(identity_affine(1), size, length, length)
        taps = (_linear if interpolation == "bilinear" else _cubic)(x[0, 0], length, fill)
        weights = np.zeros((length, size), np.float32)
        for index, weight in taps:
            np.add.at(weights, (np.asarray(index), np.arange(size)), np.asarray(weight))
    return weights


def _linear(position: jax.Array, length: int, fill: str) -> list[tuple[jax.Array, jax.Array]]:
    """Returns the two pixels (int32) along an axis around each position, and their weights."""
    if fill == "reflect":
        period = 2 * length
        position = jnp.abs(position + 0.5) % period
        position = jnp.clip(jnp.minimum(position, period - position) - 0.5, 0, length - 1)
    first = jnp.clip(jnp.floor(position), 0, length - 2)
    offset, index = position - first, first.astype(jnp.int32)
    # Hat functions, not 1 - offset and offset: positions beyond the image get weight 0.
    return [(index + i, jnp.maximum(1 - jnp.abs(offset - i), 0)) for i in (0, 1)]


def _cubic(position: jax.Array, length: int, fill: str) -> list[tuple[jax.Array, jax.Array]]:
    """Returns the four pixels (int32) along an axis around each position, and their weights."""
    taps = []
    for i in (-1, 0, 1, 2):
        index = jnp.floor(position) + i
        d = jnp.abs(position - index)
        near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
        weight = jnp.where(d <= 1, near, jnp.where(d < 2, far, 0))
        if fill == "reflect":
            index = index % (2 * length)
            index = jnp.minimum(index, 2 * length - 1 - index)
        else:
            weight = jnp.where((index >= 0) & (index < length), weight, 0)
            index = jnp.clip(index, 0, length - 1)
        taps.append((index.astype(jnp.int32), weight))
    return taps


def _inside(box: jax.Array, size: int) -> jax.Array:
    """Returns bool [B, size, size, 1]: whether the center of each pixel is in the box [B, 4]."""
    center = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    y0, x0, y1, x1 = (box[:, i, None] for i in range(4))
    rows, columns = (y0 <= center) & (center < y1), (x0 <= center) & (center < x1)
    return (rows[:, :, None] & columns[:, None, :])[..., None]
