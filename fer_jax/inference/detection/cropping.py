"""From a picture and a frame in it to the face as the network takes it."""

import numpy as np
from PIL import Image

from fer_jax.inference.structures import Box, Detection

_SHARPER = 2  # a face is shrunk to this many times its size before it is turned, to save time


def crop(image: np.ndarray, detection: Detection, side: int, channels: int) -> np.ndarray:
    """The face in a detection's frame, upright, scaled to a square as datasets are (antialiased, stretched).

    What of the frame lies outside the picture mirrors what lies inside, as in training.

    Args:
      image: uint8 [H, W] or [H, W, 3].
      detection: of a face in it.
      side: of the square.
      channels: 1 for grey (the luma of ITU-R BT.601), 3 for RGB.

    Returns:
      uint8 [side, side, channels].
    """
    frame, roll = detection.frame, np.deg2rad(detection.roll)
    reach = abs(np.cos(roll)) + abs(np.sin(roll))
    (x, y), width, height = frame.center, frame.width * reach, frame.height * reach
    left, top = int(np.floor(x - width / 2)), int(np.floor(y - height / 2))
    right = max(left + 1, int(np.ceil(x + width / 2)))
    bottom = max(top + 1, int(np.ceil(y + height / 2)))
    picture = Image.fromarray(_cut(image, left, top, right, bottom)).convert("L" if channels == 1 else "RGB")
    inside = Box(frame.left - left, frame.top - top, frame.width, frame.height)
    if detection.roll:
        picture, inside = _rotate_back(picture, inside, detection.roll, side)
    edges = (inside.left, inside.top, inside.left + inside.width, inside.top + inside.height)
    # Sums of fractions may pass the patch's edge by a rounding, which Pillow refuses.
    edges = np.clip(edges, 0, [*picture.size, *picture.size])
    face = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box=tuple(edges)))
    return np.rot90(face.reshape(side, side, channels), detection.rotation // 90)


def _cut(image: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """image[top:bottom, left:right], mirrored where that reaches outside."""
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return image[top:bottom, left:right]
    return image.take(_mirrored(top, bottom, height), axis=0).take(_mirrored(left, right, width), axis=1)


def _mirrored(start: int, stop: int, length: int) -> np.ndarray:
    """The places start to stop along an axis, those outside of it mirrored at its edges."""
    places = np.arange(start, stop) % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


def _rotate_back(picture: Image.Image, inside: Box, roll: float, side: int) -> tuple[Image.Image, Box]:
    """The picture turned by `roll` degrees about the box's centre, and the box; shrunk if much too large."""
    factor = max(1, int(min(inside.width, inside.height) / (_SHARPER * side)))
    if factor > 1:
        picture, inside = picture.reduce(factor), Box(*(value / factor for value in inside))
    return picture.rotate(roll, Image.Resampling.BICUBIC, center=inside.center), inside
