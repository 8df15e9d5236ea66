"""Decodes images (files, bytes, Pillow images, or arrays) to uint8 arrays."""

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
HEIF_ENDINGS = (".heic", ".heif")  # need another package than Pillow
_INSTALL_HEIF = "pip install 'fer_jax[heif]'"
# Pillow's names of these formats. It supports others, one of which starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 80_000_000  # larger images are refused before decoding

# Files and folders of operating systems, NAS devices, and archives, in lower case.
_SYSTEM_NAMES = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
    "lost+found", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "#recently-snapshot",
}  # fmt: skip
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # common bit depths
# Raised by Pillow; RuntimeError comes from its AVIF decoder.
_DECODING_ERRORS = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error)


class PictureError(ValueError):
    """An image, or the row of a table that names or holds it, that cannot be used.

    Attributes:
      where: file and row, or path or name of the image.
      reason: what was found and what was expected.
    """

    def __init__(self, where: str, reason: str):
        self.where, self.reason = where, reason
        super().__init__(f"{where}: {reason}")


@functools.cache
def image_endings() -> tuple[str, ...]:
    """Returns the supported file extensions; HEIC only if pillow-heif is installed."""
    return IMAGE_ENDINGS + HEIF_ENDINGS * (importlib.util.find_spec("pillow_heif") is not None)


def describe_endings(skipped: collections.Counter[str]) -> str:
    """Describes file counts by extension, and how to install HEIC support if needed."""
    order = sorted(skipped.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = ", ".join(f"{count:,} {ending or 'without an extension'}" for ending, count in order)
    return counts + f" ({_INSTALL_HEIF} to read HEIC)" * any(ending in skipped for ending in HEIF_ENDINGS)


def is_system_name(name: str) -> bool:
    """Returns whether a file or folder name is a system's own, and never a user's image.

    True for hidden names, thumbnails and recycle bins of operating systems and NAS devices, and metadata of
    archives.
    """
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES


def folder_identity(folder: str | os.PathLike, on_error: Callable[[OSError], NoReturn]) -> tuple[int, int]:
    """Returns the device and inode of a folder, which links to it share."""
    try:
        status = os.stat(folder)
    except OSError as error:
        on_error(error)
    return status.st_dev, status.st_ino


def walk(
    folder: str | os.PathLike, entered: set[tuple[int, int]], on_error: Callable[[OSError], NoReturn]
) -> Iterator[tuple[str, list[str]]]:
    """Yields a folder and its subfolders with the names of their files, without system names.

    Follows links. Skips subfolders whose `folder_identity` is in `entered` and adds the others to it, so
    that every file is found once. Calls `on_error`, which raises, for an unreadable folder.
    """
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        visible = sorted((name for name in folders if not is_system_name(name)), reverse=True)
        inside = {folder_identity(os.path.join(parent, name), on_error): name for name in visible}
        folders[:] = sorted(name for identity, name in inside.items() if identity not in entered)
        entered |= inside.keys()
        yield parent, [name for name in files if not is_system_name(name)]


def read(picture: Picture, name: str = "the image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns an image as an array, rotated upright by its EXIF orientation.

    Args:
      picture: a path, the bytes of a file, an open binary file, a Pillow image, or an array [H, W],
        [H, W, 1], [H, W, 3] (RGB), or [H, W, 4] (RGBA, whose alpha is ignored); see `to_uint8` for dtypes.
      name: name for messages, for images without a path.
      max_pixels: encoded images that declare more pixels are refused before decoding.

    Returns:
      uint8 [H, W] if gray, else [H, W, 3].

    Raises:
      PictureError: the argument is none of these, or a file that is missing, damaged, or too large.
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
        except _DECODING_ERRORS as error:  # a damaged file, opened lazily
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
        raise PictureError(repr(path), "is not a valid file name")
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
    """Decodes the first frame of a binary file or bytes, rotated upright by its EXIF orientation.

    Thread-safe. Images that declare more than `max_pixels` are refused before decoding.

    Returns:
      uint8 [H, W] if gray (also if stored as RGB with equal channels), else [H, W, 3].

    Raises:
      PictureError: the image cannot be decoded, is truncated, or is too large.
    """
    try:
        # Above its own limits Pillow warns, then raises. Warning filters are global to the process, so the
        # warning is not turned into an error; the check below refuses such images.
        file = io.BytesIO(file) if isinstance(file, bytes) else file
        image = Image.open(file, formats=_formats(file, name))
        if image.width * image.height > max_pixels:
            raise PictureError(name, _too_large(f"{image.width} x {image.height} pixels", max_pixels))
        return _from_pillow(image, name, in_place=True)  # a copy of a large image would take 100 MB
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        found = f"{count[0]} pixels" if count else str(error)
        raise PictureError(name, _too_large(found, max_pixels)) from error
    except _DECODING_ERRORS as error:
        raise _explained(error, name) from error


def _formats(file: Any, name: str) -> tuple[str, ...]:
    """Returns the allowed formats of a file; registers HEIF with Pillow for HEIC files."""
    start = file.read(10)
    file.seek(-len(start), os.SEEK_CUR)
    if start[4:] != b"ftyphe":  # brands heic, heix, hevc, and so on
        return FORMATS
    try:
        import pillow_heif
    except ImportError as error:
        raise PictureError(name, f"is a HEIC image: {_INSTALL_HEIF} to read it") from error
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _too_large(found: str, max_pixels: int) -> str:
    return f"declares {found}, above the limit of {max_pixels:,}; it was not decoded"


def _explained(error: Exception, name: str) -> PictureError:
    if isinstance(error, PictureError):
        return error
    reason = "it is not an image that can be read" if "identify" in str(error) else str(error)
    return PictureError(name, f"cannot be decoded: {reason}; expected a whole image file")


def _from_pillow(image: Image.Image, name: str, *, in_place: bool = False) -> np.ndarray:
    # Pillow keeps only the high bytes.
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
    """Returns pixel values as uint8 from 0 (black) to 255, scaled by their dtype and range.

    Booleans are black or white, floats range from 0 to 1, and integers other than uint8 are scaled by the
    bits in use: values up to 4095, for example, are 12-bit. A `UserWarning` states the assumption if the
    dtype is ambiguous. Messages contain `name`.

    Raises:
      PictureError: values are of another dtype, negative, not finite, or floats above 1.
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
        warnings.warn("float pixels are assumed to be 0 (black) to 1 (white)", stacklevel=2)
    else:
        bits = next(depth for depth in _DEPTHS if int(high) < 2**depth)
        white = 2**bits - 1
        if bits not in (16, 8 * values.dtype.itemsize):
            warnings.warn(
                f"{values.dtype} pixels that use {bits} bits are assumed to be 0 (black) to {white} (white)",
                stacklevel=2,
            )
    return (values.astype(np.float32) * np.float32(255 / white)).round().astype(np.uint8)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Returns an image uint8 [H, W] or [H, W, 3] as uint8 [H, W, 3]."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
