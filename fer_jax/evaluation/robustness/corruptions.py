"""Corrupts faces, as bad photographs and inaccurate detectors do, at five severities.

The protocol is that of Hendrycks & Dietterich 2019 (arXiv:1903.12261): corruptions have severities 1 to 5,
are not used in training, and results are means over severities. Corruptions from their benchmark have the
levels of Tiny-ImageNet-C, whose 64 pixels are closest to a face of 48 (lengths are relative to the side). The
others are specific to faces: low resolution, covered eyes and mouth, and crops of another position or size.

The random numbers of an image depend only on the seed, the corruption, and the number of the image, so
severities differ only in strength.
"""

import dataclasses
import io
import math
import zlib
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
import scipy.ndimage
from PIL import Image

from fer_jax.data import augment, transforms

SEVERITIES = (1, 2, 3, 4, 5)

# Vertical centers of eyes and mouth on the mean face of FER2013, as fractions of the side.
_EYES, _MOUTH = 0.36, 0.79
_BANDS = (0.08, 0.16, 0.24, 0.32, 0.40)
_CROPS = (0.05, 0.10, 0.15, 0.20, 0.25)

Rngs = Sequence[np.random.Generator]


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A corruption of faces."""

    title: str  # name in tables and figures
    level: str  # meaning of `levels`
    levels: tuple[float, float, float, float, float]  # level of each severity
    # (images uint8 [N, H, W, C], level, N generators) -> images in [0, 255], not rounded and clipped yet,
    # [N, H, W, C] or square.
    apply: Callable[[np.ndarray, float, Rngs], np.ndarray]


def corrupt(
    images: np.ndarray, name: str, severity: int, *, seed: int = 0, numbers: Iterable[int] | None = None
) -> np.ndarray:
    """Returns corrupted copies of faces.

    Args:
      images: uint8 [N, H, W, C], with C = 1 or 3.
      name: one of `CORRUPTIONS`.
      severity: 1 to 5.
      seed: random seed, 0 or more.
      numbers: int [N], number of each image, for its random numbers; None counts from 0.

    Returns:
      uint8 [N, H, W, C]. Crops, shifts, rotations, and motion use `transforms.resample`, which mirrors the
      image at its edges and makes it square.

    Raises:
      ValueError: the corruption or severity is unknown, or the images have another dtype or shape.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; there are: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r}: expected one of {', '.join(map(str, SEVERITIES))}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"expected faces uint8 [N, H, W, 1 or 3], got {images.dtype} {list(images.shape)}")
    numbers = range(len(images)) if numbers is None else numbers
    stream = zlib.crc32(name.encode())
    rngs = [np.random.default_rng([seed, stream, int(number)]) for number in numbers]
    corruption = CORRUPTIONS[name]
    result = corruption.apply(images, corruption.levels[severity - 1], rngs)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _gaussian_noise(images: np.ndarray, deviation: float, rngs: Rngs) -> np.ndarray:
    noise = np.stack([rng.standard_normal(images.shape[1:], np.float32) for rng in rngs])
    return images + 255 * deviation * noise


def _shot_noise(images: np.ndarray, photons: float, rngs: Rngs) -> np.ndarray:
    counts = [rng.poisson(image * (photons / 255)) for image, rng in zip(images, rngs, strict=True)]
    return np.stack(counts) * (255 / photons)


def _impulse_noise(images: np.ndarray, share: float, rngs: Rngs) -> np.ndarray:
    drawn = np.stack([rng.random(images.shape[1:], np.float32) for rng in rngs])
    return np.where(drawn < share / 2, 0, np.where(drawn >= 1 - share / 2, 255, images))


def _gaussian_blur(images: np.ndarray, sigma: float, rngs: Rngs) -> np.ndarray:
    sigma *= max(images.shape[1:3]) / 64
    return scipy.ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0))


def _contrast(images: np.ndarray, factor: float, rngs: Rngs) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (images - mean)


def _brightness(images: np.ndarray, added: float, rngs: Rngs) -> np.ndarray:
    return images + 255 * added


def _with_pillow(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    gray = images.shape[-1] == 1
    changed = [np.asarray(change(Image.fromarray(image[..., 0] if gray else image))) for image in images]
    return np.stack(changed).reshape(images.shape)


def _jpeg(images: np.ndarray, quality: float, rngs: Rngs) -> np.ndarray:
    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _with_pillow(images, compress)


def _resolution(images: np.ndarray, pixels: float, rngs: Rngs) -> np.ndarray:
    scale = min(1, pixels / max(images.shape[1:3]))
    small = [max(1, round(side * scale)) for side in images.shape[2:0:-1]]

    def reduce(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)

    return _with_pillow(images, reduce)


def _cover(images: np.ndarray, middle: float, height: float) -> np.ndarray:
    """Covers the face with a band of its mean color."""
    rows = (np.arange(images.shape[1]) + 0.5) / images.shape[1]
    covered = abs(rows - middle) <= height / 2
    return np.where(covered[:, None, None], images.mean(axis=(1, 2), keepdims=True), images)


_resample = jax.jit(transforms.resample, static_argnums=2)


def _draw(images: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Resamples the faces by affine maps [N, 2, 3] from output to input, to float32 in [0, 255]."""
    return 255 * np.asarray(_resample(images, affine.astype(np.float32), max(images.shape[1:3])))


def _moved(count: int, by: np.ndarray) -> np.ndarray:
    """Returns affine maps that shift the crop by [N, 2] (x, y), relative to the side."""
    affine = augment.identity_affine(count)
    affine[:, :, 2] = 2 * by  # the normalized square is 2 wide
    return affine


def _directions(rngs: Rngs) -> np.ndarray:
    """Draws unit vectors [N, 2]."""
    angle = 2 * math.pi * np.array([rng.random() for rng in rngs])
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _motion_blur(images: np.ndarray, length: float, rngs: Rngs) -> np.ndarray:
    along = length * _directions(rngs)
    # Half a pixel apart.
    places = np.linspace(-0.5, 0.5, 2 * math.ceil(length * max(images.shape[1:3])) + 1)
    return np.mean([_draw(images, _moved(len(images), place * along)) for place in places], axis=0)


def _rotation(images: np.ndarray, degrees: float, rngs: Rngs) -> np.ndarray:
    angle = np.deg2rad(degrees) * np.array([rng.choice((-1, 1)) for rng in rngs])
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros(len(images))
    aspect = images.shape[1] / images.shape[2]
    return _draw(images, np.array([[cos, -sin * aspect, zero], [sin / aspect, cos, zero]]).transpose(2, 0, 1))


def _crop(images: np.ndarray, cut: float, rngs: Rngs) -> np.ndarray:
    low, high = cut / 2, 1 - cut / 2
    return _draw(images, augment.crop_affine(len(images), low, low, high, high))


def _shift(images: np.ndarray, distance: float, rngs: Rngs) -> np.ndarray:
    return _draw(images, _moved(len(images), distance * _directions(rngs)))


CORRUPTIONS = {
    "gaussian_noise": Corruption(
        "Gaussian noise", "deviation / 255", (0.04, 0.08, 0.12, 0.15, 0.18), _gaussian_noise
    ),
    "shot_noise": Corruption("shot noise", "photons at white", (250, 100, 50, 30, 15), _shot_noise),
    "impulse_noise": Corruption(
        "salt and pepper", "share of the pixels", (0.01, 0.02, 0.05, 0.08, 0.14), _impulse_noise
    ),
    "gaussian_blur": Corruption(
        "Gaussian blur", "sigma, in 1/64 of the side", (0.5, 0.75, 1, 1.25, 1.5), _gaussian_blur
    ),
    "motion_blur": Corruption("motion blur", "length / side", (0.06, 0.10, 0.14, 0.18, 0.22), _motion_blur),
    "contrast": Corruption("low contrast", "factor", (0.4, 0.3, 0.2, 0.1, 0.05), _contrast),
    "brighter": Corruption("brighter", "added / 255", (0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    "darker": Corruption("darker", "added / 255", (-0.1, -0.2, -0.3, -0.4, -0.5), _brightness),
    "jpeg": Corruption("JPEG", "quality", (65, 58, 50, 40, 25), _jpeg),
    "resolution": Corruption("low resolution", "pixels a side", (40, 32, 24, 20, 16), _resolution),
    "rotation": Corruption("rotation", "degrees to either side", (5, 10, 15, 22, 30), _rotation),
    "eyes_covered": Corruption(
        "eyes covered", "height / side", _BANDS, lambda images, height, rngs: _cover(images, _EYES, height)
    ),
    "mouth_covered": Corruption(
        "mouth covered", "height / side", _BANDS, lambda images, height, rngs: _cover(images, _MOUTH, height)
    ),
    "tight_crop": Corruption("tight crop", "cut off / side", _CROPS, _crop),
    "wide_crop": Corruption(
        "wide crop", "added / side", _CROPS, lambda images, added, rngs: _crop(images, -added, rngs)
    ),
    "shifted_crop": Corruption("shifted crop", "shift / side", (0.04, 0.08, 0.12, 0.16, 0.20), _shift),
}
