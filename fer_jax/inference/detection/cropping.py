"""Crops detected faces for the network."""

import numpy as np
from PIL import Image

from fer_jax.inference.structures import Box, Detection

_OVERSAMPLING = 2  # faces are reduced to about this multiple of their final size before rotation


def crop(image: np.ndarray, detection: Detection, side: int, channels: int) -> np.ndarray:
    """Returns the upright face in the frame of a detection, resized with antialiasing, as in datasets.

    The image is mirrored at its edges, as in training.

    Args:
      image: uint8 [H, W] or [H, W, 3].
      detection: a face in the image.
      side: side of the result, in pixels.
      channels: 1 for grayscale (the luma of ITU-R BT.601), 3 for RGB.

    Returns:
      uint8 [side, side, channels].
    """
    frame, roll = detection.frame, np.deg2rad(detection.roll)
    reach = abs(np.cos(roll)) + abs(np.sin(roll))
    (x, y), width, height = frame.center, frame.width * reach, frame.height * reach
    left, top = int(np.floor(x - width / 2)), int(np.floor(y - height / 2))
    right = max(left + 1, int(np.ceil(x + width / 2)))
    bottom = max(top + 1, int(np.ceil(y + height / 2)))
    patch = Image.fromarray(_cut(image, left, top, right, bottom)).convert("L" if channels == 1 else "RGB")
    inside = Box(frame.left - left, frame.top - top, frame.width, frame.height)
    if detection.roll:
        if (factor := int(min(frame.width, frame.height) / (_OVERSAMPLING * side))) > 1:
            patch, inside = patch.reduce(factor), inside.scaled(1 / factor)
        patch = patch.rotate(detection.roll, Image.Resampling.BICUBIC, center=inside.center)
    # The box may exceed the patch by rounding errors, which Pillow refuses.
    edges = np.clip(inside.edges, 0, [*patch.size, *patch.size])
    face = np.asarray(patch.resize((side, side), Image.Resampling.BILINEAR, box=tuple(edges)))
    return np.rot90(face.reshape(side, side, channels), detection.rotation // 90)


def _cut(image: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Returns image[top:bottom, left:right], mirrored outside the image."""
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return image[top:bottom, left:right]
    return image.take(_mirrored(top, bottom, height), axis=0).take(_mirrored(left, right, width), axis=1)


def _mirrored(start: int, stop: int, length: int) -> np.ndarray:
    """Returns the indices start to stop of an axis, mirrored at its edges."""
    indices = np.arange(start, stop) % (2 * length)
    return np.minimum(indices, 2 * length - 1 - indices)
