"""Augmentation in two halves: the host draws a few floats a face, the device draws the pictures.

Host (NumPy, inside the Grain pipeline): `Ranges` says how far each augmentation may go, `draw`
turns them into small float32 arrays for a whole batch.

Device (JAX, inside the jitted step): `apply` carries them out in a fixed order: one bilinear affine
resample from the native pixels straight to the model's input size, then colour, erasing, mixup and
cutmix. A batch drawn with `identity` goes through untouched, so evaluation shares the code.

Coordinates are normalised: x to the right, y down, -1 and 1 on the outer EDGES of the image (not on
the centres of its outer pixels), so that a map means the same at every resolution. An affine map
[2, 3] takes OUTPUT coordinates (x, y, 1) to INPUT coordinates (x, y); its rows are x and y.

To add an augmentation: a range in `Ranges`, its draw in `draw` and `identity`, a function of the
pixels below, a line in `apply`, and a test against an independent implementation.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

FILLS = ("reflect", "constant")
INTERPOLATIONS = ("bilinear", "bicubic")
# One grey level. A factor, since XLA turns a division by 255 into this very product on some paths
# only.
PIXEL = np.float32(1 / 255)


@dataclasses.dataclass(frozen=True)
class Ranges:
    """How far each augmentation may go; the defaults change nothing.

    Everything is drawn uniformly and independently for each face, except where stated.

    Attributes:
      flip: probability of a horizontal flip.
      rotation: largest angle in degrees, to either side.
      shift: largest shift along each axis, as a fraction of the side.
      zoom: (low, high) magnification; above 1 the face grows.
      shear: largest horizontal shear angle in degrees, to either side.
      brightness: largest value added to the pixels, to either side, on the scale [0, 1].
      contrast: (low, high) factor on the pixels' distance from their image's mean.
      gamma: (low, high) exponent on the pixels; drawn uniformly in its logarithm.
      erasing: probability of painting over a random box (Zhong et al., arXiv:1708.04896).
      erasing_area: (low, high) area of that box as a fraction of the image; its aspect ratio lies
        between 0.3 and 3.3, uniform in its logarithm.
      mixup: alpha of the Beta(alpha, alpha) share of each face in a blend, the larger part its own
        (Zhang et al., arXiv:1710.09412); 0 switches mixup off.
      cutmix: alpha of the Beta(alpha, alpha) share kept when a box comes from another face (Yun et
        al., arXiv:1905.04899); 0 switches cutmix off. With both on, each face gets one of them,
        evenly.
      mix_probability: share of the faces that are mixed at all.
      fill: what lies outside the image: 'reflect' (mirrored at the edge, the outer pixel repeated)
        or 'constant' (one value, see `apply`).
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
        """Whether faces are mixed, which needs an even batch on every device."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_probability > 0


PRESETS = {
    "none": Ranges(),
    "light": Ranges(flip=0.5, rotation=10, shift=0.08, zoom=(0.9, 1.1), brightness=0.1, contrast=(0.8, 1.2)),
    # From scratch at 48 px, for tens of epochs rather than hundreds.
    "cnn": Ranges(
        flip=0.5,
        rotation=12,
        shift=0.1,
        zoom=(0.88, 1.12),
        brightness=0.1,
        contrast=(0.8, 1.2),
        erasing=0.15,
    ),
    # ImageNet backbones at 96 px, as the field's Keras notebooks train them.
    "backbone_96": Ranges(
        flip=0.5,
        rotation=20,
        shift=0.1,
        zoom=(0.8, 1.2),
        shear=10,
        brightness=0.1,
        contrast=(0.8, 1.2),
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


# -------------------- host: the draws --------------------


def draw(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws one batch of augmentation parameters.

    Args:
      ranges: how far each augmentation may go.
      batch_size: number of faces, B.
      rng: where the randomness comes from.

    Returns:
      float32 arrays: 'affine' [B, 2, 3]; 'color' [B, 3] (brightness added, contrast factor, gamma);
      'erase' [B, 4] (y0, x0, y1, x1 in [0, 1], empty for none); and, where the ranges mix faces,
      'mix' [B, 5] (the face's own share in the blend, then the box y0, x0, y1, x1 that comes from
      its partner). Without mixing 'mix' is left out, so that odd batches can be trained on.
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
    """The parameters that change nothing, in the form of `draw` with mixing."""
    return {
        "affine": identity_affine(batch_size),
        "color": np.tile(np.float32([0, 1, 1]), (batch_size, 1)),
        "erase": np.zeros((batch_size, 4), np.float32),
        "mix": np.tile(np.float32([1, 0, 0, 0, 0]), (batch_size, 1)),
    }


def identity_affine(batch_size: int) -> np.ndarray:
    """float32 [B, 2, 3]: every output point from the same input point."""
    return np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (batch_size, 1, 1))


def flip_affine(batch_size: int) -> np.ndarray:
    """float32 [B, 2, 3]: the image mirrored left to right."""
    return np.tile(np.float32([[-1, 0, 0], [0, 1, 0]]), (batch_size, 1, 1))


def crop_affine(batch_size: int, y0: float, x0: float, y1: float, x1: float) -> np.ndarray:
    """float32 [B, 2, 3]: the box with these edges, as fractions in [0, 1], fills the output."""
    row = np.float32([[x1 - x0, 0, x0 + x1 - 1], [0, y1 - y0, y0 + y1 - 1]])
    return np.tile(row, (batch_size, 1, 1))


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The map, float32 [B, 2, 3], of images transformed by `first` and then by `second`."""
    # Maps lead from the output back to the input, so the last transformation is applied first.
    linear = first[:, :, :2] @ second[:, :, :2]
    offset = first[:, :, :2] @ second[:, :, 2:] + first[:, :, 2:]
    return np.concatenate([linear, offset], axis=2)


def _draw_affine(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [B, 2, 3]: shift and zoom, then rotation, then shear, then flip of the face."""
    angle = np.deg2rad(rng.uniform(-ranges.rotation, ranges.rotation, batch_size))
    shear = np.tan(np.deg2rad(rng.uniform(-ranges.shear, ranges.shear, batch_size)))
    scale = 1 / rng.uniform(*ranges.zoom, batch_size)
    mirror = np.where(rng.random(batch_size) < ranges.flip, -1.0, 1.0)
    # The normalised square is 2 wide, so a shift by the whole side is 2.
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
    """float64 [B, 3]: brightness, contrast, gamma."""
    brightness = rng.uniform(-ranges.brightness, ranges.brightness, batch_size)
    contrast = rng.uniform(*ranges.contrast, batch_size)
    gamma = np.exp(rng.uniform(*np.log(ranges.gamma), batch_size))
    return np.stack([brightness, contrast, gamma], axis=1)


def _draw_erase(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [B, 4]: boxes that lie wholly inside the image."""
    if not ranges.erasing:
        return np.zeros((batch_size, 4))
    area = rng.uniform(*ranges.erasing_area, batch_size)
    aspect = np.exp(rng.uniform(math.log(0.3), math.log(3.3), batch_size))
    size = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect], axis=1)), 1)
    corner = rng.random((batch_size, 2)) * (1 - size)
    kept = rng.random((batch_size, 1)) < ranges.erasing
    return np.concatenate([corner, corner + size], axis=1) * kept


def _draw_mix(ranges: Ranges, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [B, 5]: a share for mixup or a box for cutmix, never both."""
    mix = np.tile([1.0, 0, 0, 0, 0], (batch_size, 1))
    mixed = rng.random(batch_size) < ranges.mix_probability
    cut_share = 0.5 if ranges.mixup and ranges.cutmix else float(ranges.cutmix > 0)
    cut = rng.random(batch_size) < cut_share
    if ranges.mixup:
        share = rng.beta(ranges.mixup, ranges.mixup, batch_size)
        # The larger share is a face's own: as good as either, the pairs being random, and no face
        # is lost from the batch while its partner is shown twice.
        share = np.maximum(share, 1 - share)
        mix[:, 0] = np.where(mixed & ~cut, share, 1)
    if ranges.cutmix:
        # As in the paper: the box's sides are sqrt(1 - share), its centre anywhere, clipped to the
        # image.
        half = np.sqrt(1 - rng.beta(ranges.cutmix, ranges.cutmix, (batch_size, 1))) / 2
        centre = rng.random((batch_size, 2))
        box = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, 1)
        mix[:, 1:] = box * (mixed & cut)[:, None]
    return mix


# -------------------- device: the pixels --------------------


def apply(
    batch: dict[str, jax.Array],
    size: int,
    fill: str = "reflect",
    mean: float = 0.5,
    interpolation: str = "bilinear",
) -> tuple[jax.Array, jax.Array]:
    """Carries out a batch's augmentation: resample, colour, erasing, mixing.

    Steps whose parameters are not in the batch are skipped, so an evaluation batch may bring
    'affine' alone.

    Args:
      batch: 'image' uint8 [B, H, W, C], 'target' float32 [B, K], 'affine' and, if wanted, 'color',
        'erase' and 'mix' as drawn by `draw`.
      size: side of the square result.
      fill: what lies outside the image, one of `FILLS`.
      mean: the value in [0, 1] of erased boxes and of the constant fill: the data's mean, so that
        both are 0 after normalisation.
      interpolation: as `resample` takes it.

    Returns:
      Images float32 [B, size, size, C] in [0, 1] and targets float32 [B, K].

    Raises:
      ValueError: when an odd batch is to be mixed, or `resample` cannot take the images.
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
    affine: jax.Array,
    size: int,
    fill: str = "reflect",
    value: float = 0.5,
    interpolation: str = "bilinear",
) -> jax.Array:
    """One affine resample straight to the output size.

    The identity at equal size and a flip return the very pixels times `PIXEL`. Where the image
    shrinks by 1.5 or more, each output pixel is the mean of several samples (2 x 2 at half size),
    against aliasing.

    Args:
      images: uint8 [B, H, W, C] with sides of at least 2.
      affine: float32 [B, 2, 3], output to input coordinates (see the module's docstring).
      size: side of the square result; images that are not square are stretched.
      fill: 'reflect' mirrors at the edge and repeats the outer pixel (cv2.BORDER_REFLECT, SciPy's
        'reflect'); 'constant' puts `value` around the image (cv2.BORDER_CONSTANT).
      value: in [0, 1].
      interpolation: 'bilinear', or 'bicubic' (Keys 1981 with a = -1/2, as Pillow), clipped to [0, 1].

    Returns:
      float32 [B, size, size, C] in [0, 1].

    Raises:
      ValueError: for another dtype, rank, side, fill or interpolation.
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
    # take_along_axis keeps the batch a batch axis, so that a sharded batch is resampled without
    # exchange.
    flat = images.reshape(batch_size, height * width, channels)

    def pixels(row, column):
        index = (row * width + column).reshape(batch_size, side * side, 1)
        found = jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds")
        return found.reshape(batch_size, side, side, channels).astype(jnp.float32)

    out = sum(
        down[..., None] * sum(across[..., None] * pixels(row, column) for column, across in columns)
        for row, down in rows
    )
    out *= PIXEL
    if fill == "constant":
        within = sum(weight for _, weight in rows) * sum(weight for _, weight in columns)
        out += value * (1 - within[..., None])
    if interpolation == "bicubic":
        out = jnp.clip(out, 0, 1)
    if samples > 1:
        out = out.reshape(batch_size, size, samples, size, samples, channels).mean(axis=(2, 4))
    return out


def color(x: jax.Array, parameters: jax.Array) -> jax.Array:
    """Gamma, then contrast about the image's mean, then brightness, clipped to [0, 1].

    Args:
      x: float32 [B, S, S, C] in [0, 1].
      parameters: float32 [B, 3], brightness added, contrast factor, gamma.
    """
    brightness, contrast, gamma = (parameters[:, i, None, None, None] for i in range(3))
    x = jnp.where(gamma == 1, x, jnp.power(x, gamma))
    # Written as a difference, so that a contrast of 1 leaves the pixels exactly as they are.
    x = x + ((contrast - 1) * (x - x.mean(axis=(1, 2, 3), keepdims=True)) + brightness)
    return jnp.clip(x, 0, 1)


def erase(x: jax.Array, box: jax.Array, value: float) -> jax.Array:
    """Paints `value` on the pixels whose centre lies in `box`.

    Args:
      x: float32 [B, S, S, C].
      box: float32 [B, 4], y0, x0, y1, x1 as fractions of the sides.
      value: in the units of x.
    """
    return jnp.where(_inside(box, x.shape[1]), value, x)


def mix(x: jax.Array, targets: jax.Array, parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mixup and cutmix of neighbours: face i with face i + 1 for even i, i - 1 for odd i.

    Neighbours in a shuffled batch are random pairs, and unlike a permutation they stay on one
    device.

    Args:
      x: float32 [B, S, S, C] with B even.
      targets: float32 [B, K].
      parameters: float32 [B, 5], own share, then the partner's box y0, x0, y1, x1.

    Returns:
      x and targets mixed; the own share of a target is that of the pixels, counted exactly.

    Raises:
      ValueError: when B is odd.
    """
    if x.shape[0] % 2:
        raise ValueError(
            f"mixup and cutmix pair neighbours, but the batch on a device has {x.shape[0]} faces, "
            "an odd number: choose a batch size that is a multiple of twice the number of devices, "
            "or switch both off"
        )
    share, inside = parameters[:, 0, None, None, None], _inside(parameters[:, 1:], x.shape[1])
    own = jnp.where(inside, 0, share)
    x = own * x + (1 - own) * _partner(x)
    weight = own.mean(axis=(1, 2, 3))[:, None]
    return x, weight * targets + (1 - weight) * _partner(targets)


def _partner(x: jax.Array) -> jax.Array:
    """x [B, ...] with each pair of neighbours swapped."""
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _input_coordinates(affine: jax.Array, side: int, height: int, width: int):
    """Where the outputs lie in the input, in pixels: x and y, float32 [B, side, side]."""
    # Twice the distance of the outputs from the middle, in pixels: integers, so the identity stays
    # exact.
    steps = jnp.arange(1 - side, side, 2, dtype=jnp.float32)
    a = affine[:, :, :, None, None]
    along_x, along_y = steps[None, None, :], steps[None, :, None]
    x = (a[:, 0, 0] * along_x + a[:, 0, 1] * along_y) * (width / (2 * side))
    y = (a[:, 1, 0] * along_x + a[:, 1, 1] * along_y) * (height / (2 * side))
    return x + (a[:, 0, 2] * (width / 2) + (width - 1) / 2), (
        y + (a[:, 1, 2] * (height / 2) + (height - 1) / 2)
    )


def _linear(position: jax.Array, length: int, fill: str) -> list[tuple[jax.Array, jax.Array]]:
    """The two pixels (int32) along an axis around each position, and their weights."""
    if fill == "reflect":
        period = 2 * length
        position = jnp.abs(position + 0.5) % period
        position = jnp.clip(jnp.minimum(position, period - position) - 0.5, 0, length - 1)
    first = jnp.clip(jnp.floor(position), 0, length - 2)
    offset, index = position - first, first.astype(jnp.int32)
    # Hats, not just 1 - offset and offset: positions beyond the image get no weight from it.
    return [(index + i, jnp.maximum(1 - jnp.abs(offset - i), 0)) for i in (0, 1)]


def _cubic(position: jax.Array, length: int, fill: str) -> list[tuple[jax.Array, jax.Array]]:
    """The four pixels (int32) along an axis around each position, and their weights."""
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
    """bool [B, size, size, 1]: pixels whose centre lies in the box [B, 4]."""
    centre = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    y0, x0, y1, x1 = (box[:, i, None] for i in range(4))
    rows, columns = (y0 <= centre) & (centre < y1), (x0 <= centre) & (centre < x1)
    return (rows[:, :, None] & columns[:, None, :])[..., None]
