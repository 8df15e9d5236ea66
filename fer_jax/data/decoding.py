"""Pictures as people have them -> arrays."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fer_jax.data.sources import folders
from fer_jax.data.sources.record import BadRecordError

Picture = np.ndarray | Image.Image | str | os.PathLike


class PictureError(ValueError):
    """A picture that cannot be used; the message names it and says what was expected."""


def read(picture: Picture, name: str = "the picture") -> np.ndarray:
    """A picture as an array, turned upright as its EXIF data say.

    Args:
      picture: a path, a Pillow image, or uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA, the
        last left out).
      name: what to call it in a message, where it has no path.

    Returns:
      uint8 [H, W] when grey, else [H, W, 3].

    Raises:
      PictureError: it is none of these, or a file that is missing, damaged or too large.
    """
    if isinstance(picture, str | os.PathLike):
        return _read_file(Path(picture))
    if isinstance(picture, Image.Image):
        try:
            picture = folders.to_array(ImageOps.exif_transpose(picture))
        except folders.DECODING_ERRORS as error:  # a lazily opened file that is damaged
            raise PictureError(f"{name} cannot be decoded: {error}") from error
    if not isinstance(picture, np.ndarray):
        raise PictureError(
            f"{name} is a {type(picture).__name__}; expected a path, a Pillow image or a uint8 array"
        )
    return _check(picture, name)


def decode(data: bytes, name: str, max_pixels: int = folders.MAX_PIXELS) -> np.ndarray:
    """An encoded picture as an array, see `folders.decode`.

    Args:
      data: what its file would hold.
      name: what to call it in a message.
      max_pixels: what declares more is refused before it is decoded.

    Raises:
      PictureError: it cannot be decoded, or is too large.
    """
    try:
        return folders.decode(io.BytesIO(data), name, max_pixels)
    except BadRecordError as error:
        raise PictureError(str(error)) from error


def _read_file(path: Path) -> np.ndarray:
    if path.is_dir():
        raise PictureError(f"{path} is a folder; expected an image file")
    if not path.exists():
        raise PictureError(f"{path} does not exist")
    try:
        return folders.read_image(path)
    except BadRecordError as error:
        raise PictureError(str(error)) from error


def _check(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not array.size or not (array.ndim == 2 or colours):
        raise PictureError(
            f"{name} is {array.dtype} {list(array.shape)}; expected uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) "
            "or [H, W, 4], values 0 to 255"
        )
    return array[..., :3] if colours else array


def to_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] -> uint8 [H, W, 3]."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
