"""Decodes images: a file, bytes, a Pillow image, or an array becomes a uint8 array."""

import collections
import functools
import importlib.util
import io
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageOps

Picture = np.ndarray | Image.Image | str | os.PathLike | bytes | io.IOBase

IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".avif",
    ".jp2",
)  # fmt: skip
HEIF_ENDINGS = (".heic", ".heif")  # for which Pillow needs another package
_INSTALL_HEIF = "pip install 'fer_jax[heif]'"
# Pillow's names of their formats. It reads more: for one of them it starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 80_000_000  # a large photograph; a file that declares more is refused before it is decoded

# Files and folders of operating systems, NAS devices and archives, in lower case.
_SYSTEM_NAMES = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
    "lost+found", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "#recently-snapshot",
}  # fmt: skip
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits that cameras, scanners and programs use
# What Pillow raises; RuntimeError is of its AVIF decoder.
_DECODING_ERRORS = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error)


class PictureError(ValueError):
    """An image that cannot be used.

    Attributes:
      where: the file's path, or what the image is called.
      reason: what was found and what was expected.
    """

    def __init__(self, where: str, reason: str):
        self.where, self.reason = where, reason
        super().__init__(f"{where}: {reason}")


@functools.cache
def image_endings() -> tuple[str, ...]:
    """Returns the endings of the images that are read here: HEIC's only if pillow-heif is installed."""
    return IMAGE_ENDINGS + HEIF_ENDINGS * (importlib.util.find_spec("pillow_heif") is not None)


def describe_endings(skipped: collections.Counter[str]) -> str:
    """Returns how many files have which ending, most first, and how to get HEIC images among them read."""
    order = sorted(skipped.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = ", ".join(f"{count:,} {ending or 'without ending'}" for ending, count in order)
    return counts + f" ({_INSTALL_HEIF} to read HEIC)" * any(ending in skipped for ending in HEIF_ENDINGS)


def is_system_name(name: str) -> bool:
    """Returns whether a file or folder of this name never holds a user's images.

    True for hidden names, the thumbnails and recycle bins of operating systems and NAS devices, and what
    archives leave behind.
    """
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES


def folder_identity(folder: str | os.PathLike, on_error: Callable[[OSError], NoReturn]) -> tuple[int, int]:
    """Returns what a folder has in common with the links to it."""
    try:
        status = os.stat(folder)
    except OSError as error:
        on_error(error)
    return status.st_dev, status.st_ino


def walk(
    folder: str | os.PathLike, entered: set[tuple[int, int]], on_error: Callable[[OSError], NoReturn]
) -> Iterator[tuple[str, list[str]]]:
    """Yields a folder and those below it, each with the names of its files, system names left out.

    Links are followed. Folders below whose `folder_identity` is in `entered` are skipped, and the others are
    added to it, so that links lead neither in circles nor twice to a file.

    Args:
      folder: where to start.
      entered: the identities of folders that are not to be entered.
      on_error: called with the OSError of a folder that cannot be read; raises.
    """
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        visible = sorted((name for name in folders if not is_system_name(name)), reverse=True)
        inside = {folder_identity(os.path.join(parent, name), on_error): name for name in visible}
        folders[:] = sorted(name for identity, name in inside.items() if identity not in entered)
        entered |= inside.keys()
        yield parent, [name for name in files if not is_system_name(name)]


def read(picture: Picture, name: str = "the image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns an image as an array, turned upright as its EXIF data says.

    Args:
      picture: a path, the bytes of a file, an open binary file, a Pillow image, or an array [H, W],
        [H, W, 1], [H, W, 3] (RGB), or [H, W, 4] (RGBA, whose alpha is ignored); see `to_uint8` for dtypes.
      name: what to call it in a message, where it has no path.
      max_pixels: bytes or an open file of an image that declares more are refused before decoding.

    Returns:
      uint8 [H, W] when gray, else [H, W, 3].

    Raises:
      PictureError: it is none of these, or a file that is missing, damaged, or too large.
    """
    if isinstance(picture, str) and re.match(r"https?://|data:", picture, re.IGNORECASE):
        raise PictureError(repr(picture[:60]), "is no file; download or decode it first")
    if isinstance(picture, str | os.PathLike):
        return _read_file(os.fspath(picture))
    if isinstance(picture, bytes | io.IOBase) and not isinstance(picture, io.TextIOBase):
        return decode(picture, name, max_pixels)
    if isinstance(picture, Image.Image):
        try:
            return _from_pillow(picture, name)
        except _DECODING_ERRORS as error:  # a lazily opened file that is damaged
            raise _explained(error, name) from error
    if not isinstance(picture, np.ndarray):
        raise PictureError(
            name,
            f"a {type(picture).__name__}; expected a path, bytes, a binary file, a Pillow image, or an array",
        )
    array = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    in_color = array.ndim == 3 and array.shape[2] in (3, 4)
    if not array.size or not (array.ndim == 2 or in_color):
        raise PictureError(
            name, f"{array.dtype} {list(array.shape)}; expected [H, W], [H, W, 1], [H, W, 3], or [H, W, 4]"
        )
    return to_uint8(array[..., :3] if in_color else array, name)


def _read_file(path: str) -> np.ndarray:
    if "\0" in path:
        raise PictureError(repr(path), "is no name of a file")
    if os.path.isdir(path):
        raise PictureError(path, "is a folder; expected an image file")
    try:
        with open(path, "rb") as file:
            return decode(file, path)
    except FileNotFoundError as error:
        raise PictureError(path, "does not exist") from error
    except PermissionError as error:
        raise PictureError(path, "no permission to read it; check the file's permissions") from error
    except OSError as error:
        raise PictureError(path, f"cannot be read: {error.strerror or error}") from error


def decode(file: Any, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file, turned upright as its EXIF data says; safe to call from several threads.

    Args:
      file: the encoded image, or its bytes; of several frames the first is taken.
      name: what to call it in a message.
      max_pixels: an image that declares more is refused before it is decoded.

    Returns:
      uint8 [H, W] when gray (also when stored as RGB with equal channels), else [H, W, 3].

    Raises:
      PictureError: it cannot be decoded, is truncated, or is too large.
    """
    try:
        # Above its own limits Pillow warns, then refuses. The filters of warnings are the whole process's, so
        # the warning stays one: what it is about is refused just below.
        file = io.BytesIO(file) if isinstance(file, bytes) else file
        image = Image.open(file, formats=_formats(file, name))
        if image.width * image.height > max_pixels:
            raise PictureError(name, _too_large(f"{image.width} x {image.height} pixels", max_pixels))
        return _from_pillow(image, name, in_place=True)  # a copy of a large image takes 100 MB
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        found = f"{count[0]} pixels" if count else str(error)
        raise PictureError(name, _too_large(found, max_pixels)) from error
    except _DECODING_ERRORS as error:
        raise _explained(error, name) from error


def _formats(file: Any, name: str) -> tuple[str, ...]:
    """Returns the formats that a file may have; registers HEIF with Pillow for a file that is HEIC."""
    start = file.read(10)
    file.seek(-len(start), os.SEEK_CUR)
    if start[4:] != b"ftyphe":  # the brands heic, heix, hevc and so on
        return FORMATS
    try:
        import pillow_heif
    except ImportError as error:
        raise PictureError(name, f"is a HEIC image: {_INSTALL_HEIF} to read it") from error
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _too_large(found: str, max_pixels: int) -> str:
    return f"declares {found}, more than the limit of {max_pixels:,}; it was not decoded"


def _explained(error: Exception, name: str) -> PictureError:
    if isinstance(error, PictureError):
        return error
    reason = "it is not an image that can be read" if "identify" in str(error) else str(error)
    return PictureError(name, f"cannot be decoded: {reason}; expected a whole image file")


def _from_pillow(image: Image.Image, name: str, *, in_place: bool = False) -> np.ndarray:
    # Pillow keeps the high bytes only.
    deep_color = ";16" in str(getattr(image, "tile", "")) and image.mode == "RGB"
    image = ImageOps.exif_transpose(image, in_place=in_place) or image
    if not image.width or not image.height:
        raise PictureError(name, f"{image.width} x {image.height} pixels; expected at least one")
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return to_uint8(np.asarray(image), name)
    array = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if deep_color and array.max() < 16:
        raise PictureError(
            name, "16-bit color whose values are all below 4096; save it with 8 bits a channel, scaled to 255"
        )
    gray = (array[..., :1] == array).all()
    return np.ascontiguousarray(array[..., 0]) if gray else array


def to_uint8(values: np.ndarray, name: str) -> np.ndarray:
    """Returns pixel values as uint8 from 0 (black) to 255, scaled by what their type and range say.

    Booleans are black or white, floats are taken as 0 to 1, and integers other than uint8 by the bits in
    use: values up to 4095, for example, as 12 bits. Where the type alone does not decide, a `UserWarning`
    says what was assumed.

    Args:
      values: bool, integer, or float, of any shape, not empty.
      name: what to call the image in a message.

    Raises:
      PictureError: values that are negative, not finite, or floats above 1.
    """
    if values.dtype == np.uint8:
        return values
    kind, low, high = values.dtype.kind, values.min(), values.max()
    if kind not in "biuf" or not (low >= 0 and high <= (1 if kind == "f" else 2**32 - 1)):
        expected = "uint8, integers of 0 or more, or floats from 0 to 1"
        raise PictureError(name, f"{values.dtype} from {low} to {high}; expected {expected}")
    if kind == "b":
        return np.where(values, np.uint8(255), np.uint8(0))
    if kind == "f":
        white = 1
        warnings.warn("float pixels are taken as 0 (black) to 1 (white)", stacklevel=2)
    else:
        bits = next(depth for depth in _DEPTHS if int(high) < 2**depth)
        white = 2**bits - 1
        if bits not in (16, 8 * values.dtype.itemsize):
            warnings.warn(
                f"{values.dtype} pixels that use {bits} bits are taken as 0 (black) to {white} (white)",
                stacklevel=2,
            )
    return (values.astype(np.float32) * np.float32(255 / white)).round().astype(np.uint8)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Returns an image uint8 [H, W] or [H, W, 3] as uint8 [H, W, 3]."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
