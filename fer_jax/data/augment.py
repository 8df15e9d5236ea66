"""Augmentation on the host: draws a few floats per face, which `transforms` applies on the device.

`Ranges` limits each augmentation; `draw` draws small float32 arrays for a whole batch, with NumPy, inside the
Grain pipeline. This module does not import JAX, because configs import it.

Coordinates are normalized: x to the right, y down, -1 and 1 on the outer EDGES of the image (not on the
centers of its outer pixels), so that maps do not depend on the resolution. An affine map [2, 3] takes
OUTPUT coordinates (x, y, 1) to INPUT coordinates (x, y); its rows are x and y.

To add an augmentation, add a range to `Ranges`, its draw to `draw` and `identity`, a pixel operation to
`transforms`, a line to `transforms.apply`, and a test against an independent implementation.
"""

import dataclasses
import math

import numpy as np

FILLS = ("reflect", "constant")
INTERPOLATIONS = ("bilinear", "bicubic")
# One gray level. A factor, because XLA replaces a division by 255 by this product only sometimes.
PIXEL = np.float32(1 / 255)


@dataclasses.dataclass(frozen=True)
class Ranges:
    """Limits of each augmentation; the defaults change nothing.

    Every parameter is drawn uniformly and independently for each face, except where stated.

    Attributes:
      flip: probability of a horizontal flip.
      rotation: maximum absolute angle in degrees.
      shift: maximum absolute shift along each axis, as a fraction of the side.
      zoom: (low, high) magnification; above 1 the face grows.
      shear: maximum absolute horizontal shear angle in degrees.
      brightness: maximum absolute offset added to pixels in [0, 1].
      contrast: (low, high) factor on the pixels' difference from the image mean.
      gamma: (low, high) exponent on the pixels, log-uniform.
      erasing: probability of erasing a random box (Zhong et al., arXiv:1708.04896).
      erasing_area: (low, high) area of that box as a fraction of the image; its aspect ratio is log-uniform
        between 0.3 and 3.3.
      mixup: alpha of the Beta(alpha, alpha) mixing weights; a face keeps the larger one (Zhang et al.,
        arXiv:1710.09412); 0 disables mixup.
      cutmix: alpha of the Beta(alpha, alpha) share kept when a box is pasted from another face (Yun et al.,
        arXiv:1905.04899); 0 disables cutmix. With both enabled, each face gets one of them at random.
      mix_probability: fraction of faces that are mixed.
      fill: values outside the image: 'reflect' (mirrored, repeating the outer pixel) or 'constant' (see
        `transforms.apply`).
    """

    flip: float = 0.0
    rotation: float = 0.0
    shift: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    brightness: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.2)
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    fill: str = "reflect"

    def __post_init__(self):
        for name in ("flip", "erasing", "mix_probability"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a probability in [0, 1]")
        for name in ("rotation", "shift", "brightness", "mixup", "cutmix"):
            self._require(name, getattr(self, name) >= 0, "0 (off) or more")
        self._require("shear", 0 <= self.shear < 90, "an angle in degrees, 0 (off) to below 90")
        for name in ("zoom", "gamma", "contrast", "erasing_area"):
            pair = getattr(self, name)
            ordered = len(pair) == 2 and pair[0] <= pair[1]
            self._require(name, ordered and pair[0] > 0, "(low, high) with 0 < low <= high")
        self._require("erasing_area", self.erasing_area[1] <= 1, "fractions of the image, at most 1")
        self._require("fill", self.fill in FILLS, f"one of {', '.join(FILLS)}")

    def _require(self, name: str, holds: bool, expected: str):
        if not holds:
            raise ValueError(f"config.augment.{name} is {getattr(self, name)!r}; expected {expected}")

    @property
    def mixes(self) -> bool:
        """Returns whether faces are mixed, which requires an even batch size on every device."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_probability > 0


PRESETS = {
    "none": Ranges(),
    "light": Ranges(flip=0.5, rotation=10, shift=0.08, zoom=(0.9, 1.1), brightness=0.1, contrast=(0.8, 1.2)),
    # From scratch at 48 px, for tens of epochs rather than hundreds.
    "cnn": Ranges(
        flip=0.5, rotation=12, shift=0.1, zoom=(0.88, 1.12), brightness=0.1, contrast=(0.8, 1.2), erasing=0.15
    ),
    # ImageNet backbones at 96 px, as the field's Keras notebooks train them.
    "backbone_96": Ranges(
        flip=0.5, rotation=20, shift=0.1, zoom=(0.8, 1.2), shear=10, brightness=0.1, contrast=(0.8, 1.2)
    ),
    # ImageNet backbones at 224 or 240 px, fine-tuned for long.
    "backbone_224": Ranges(
        flip=0.5,
        rotation=15,
        shift=0.1,
        zoom=(0.85, 1.25),
        brightness=0.2,
        contrast=(0.6, 1.4),
        gamma=(0.8, 1.25),
        erasing=0.25,
        mixup=0.2,
    ),
}


def draw(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws the augmentation parameters of a batch of B faces.

    Returns:
      float32 arrays: 'affine' [B, 2, 3]; 'color' [B, 3] (brightness offset, contrast factor, gamma); 'erase'
      [B, 4] (y0, x0, y1, x1 in [0, 1], empty for none); and, if the ranges mix faces, 'mix' [B, 5] (the
      weight of the face, then the box y0, x0, y1, x1 pasted from its partner). Without mixing there is no
      'mix', so that odd batch sizes work.
    """
    parameters = {
        "affine": _draw_affine(ranges, batch_size, rng),
        "color": _draw_color(ranges, batch_size, rng),
        "erase": _draw_erase(ranges, batch_size, rng),
    }
    if ranges.mixes:
        parameters["mix"] = _draw_mix(ranges, batch_size, rng)
    return {name: value.astype(np.float32) for name, value in parameters.items()}


def identity(batch_size: int) -> dict[str, np.ndarray]:
    """Returns the parameters of the identity, as `draw` with mixing."""
    return {
        "affine": identity_affine(batch_size),
        "color": np.tile(np.array([0, 1, 1], np.float32), (batch_size, 1)),
        "erase": np.zeros((batch_size, 4), np.float32),
        "mix": np.tile(np.array([1, 0, 0, 0, 0], np.float32), (batch_size, 1)),
    }


def identity_affine(batch_size: int) -> np.ndarray:
    """Returns the identity map float32 [B, 2, 3]."""
    return np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (batch_size, 1, 1))


def flip_affine(batch_size: int) -> np.ndarray:
    """Returns the map float32 [B, 2, 3] that mirrors the image left to right."""
    return np.tile(np.array([[-1, 0, 0], [0, 1, 0]], np.float32), (batch_size, 1, 1))


def crop_affine(batch_size: int, y0: float, x0: float, y1: float, x1: float) -> np.ndarray:
    """Returns the map float32 [B, 2, 3] that crops a box, given by its edges as fractions in [0, 1]."""
    row = np.array([[x1 - x0, 0, x0 + x1 - 1], [0, y1 - y0, y0 + y1 - 1]], np.float32)
    return np.tile(row, (batch_size, 1, 1))


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the map float32 [B, 2, 3] that transforms images by `first` and then by `second`."""
    # Maps take output to input coordinates, so the last transformation is applied first.
    linear = first[:, :, :2] @ second[:, :, :2]
    offset = first[:, :, :2] @ second[:, :, 2:] + first[:, :, 2:]
    return np.concatenate([linear, offset], axis=2)


def _draw_affine(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws float64 [B, 2, 3]: shift and zoom, then rotation, then shear, then flip of the face."""
    angle = np.deg2rad(rng.uniform(-ranges.rotation, ranges.rotation, batch_size))
    shear = np.tan(np.deg2rad(rng.uniform(-ranges.shear, ranges.shear, batch_size)))
    scale = 1 / rng.uniform(*ranges.zoom, batch_size)
    mirror = np.where(rng.random(batch_size) < ranges.flip, -1.0, 1.0)
    # The normalized square is 2 wide, so a shift by the whole side is 2.
    shift = rng.uniform(-2 * ranges.shift, 2 * ranges.shift, (batch_size, 2))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    affine = np.empty((batch_size, 2, 3))
    # rotation @ [[1, shear], [0, 1]] @ diag(mirror, 1), written out.
    affine[:, 0, 0] = mirror * cos
    affine[:, 0, 1] = shear * cos - sin
    affine[:, 1, 0] = mirror * sin
    affine[:, 1, 1] = shear * sin + cos
    affine[:, :, 2] = shift
    return affine


def _draw_color(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws float64 [B, 3]: brightness, contrast, gamma."""
    brightness = rng.uniform(-ranges.brightness, ranges.brightness, batch_size)
    contrast = rng.uniform(*ranges.contrast, batch_size)
    low, high = np.log(ranges.gamma)
    gamma = np.exp(rng.uniform(low, high, batch_size))
    return np.stack([brightness, contrast, gamma], axis=1)


def _draw_erase(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws float64 [B, 4]: boxes inside the image."""
    if not ranges.erasing:
        return np.zeros((batch_size, 4))
    area = rng.uniform(*ranges.erasing_area, batch_size)
    aspect = np.exp(rng.uniform(math.log(0.3), math.log(3.3), batch_size))
    size = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect], axis=1)), 1)
    corner = rng.random((batch_size, 2)) * (1 - size)
    kept = rng.random((batch_size, 1)) < ranges.erasing
    return np.concatenate([corner, corner + size], axis=1) * kept


def _draw_mix(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws float64 [B, 5]: a share for mixup or a box for cutmix, never both."""
    mix = np.tile([1.0, 0, 0, 0, 0], (batch_size, 1))
    mixed = rng.random(batch_size) < ranges.mix_probability
    cut_share = 0.5 if ranges.mixup and ranges.cutmix else float(ranges.cutmix > 0)
    cut = rng.random(batch_size) < cut_share
    if ranges.mixup:
        share = rng.beta(ranges.mixup, ranges.mixup, batch_size)
        # A face keeps the larger weight: otherwise one face of a pair could vanish while the other appears
        # twice.
        share = np.maximum(share, 1 - share)
        mix[:, 0] = np.where(mixed & ~cut, share, 1)
    if ranges.cutmix:
        # As in the paper: sides of sqrt(1 - share), a uniform center, clipped to the image.
        half = np.sqrt(1 - rng.beta(ranges.cutmix, ranges.cutmix, (batch_size, 1))) / 2
        center = rng.random((batch_size, 2))
        box = np.clip(np.concatenate([center - half, center + half], axis=1), 0, 1)
        mix[:, 1:] = box * (mixed & cut)[:, None]
    return mix
