"""Tests each transformation against SciPy, OpenCV, Pillow, or plain loops."""

import json

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import ndimage

from fer_jax.data import augment, transforms

# SciPy and NumPy compute in float64, the device in float32.
EXACT = 2e-5
# OpenCV rounds coordinates to 1/32 pixel, on images whose neighbors differ by up to 0.2.
OPENCV = 0.2 / 32
SCIPY_MODE = {"reflect": "reflect", "constant": "grid-constant"}
VALUE = 0.3

resample = jax.jit(transforms.resample, static_argnums=(2, 3, 4))


def smooth_faces(count, height, width, channels, seed=0):
    """Returns smooth images uint8 [count, height, width, channels]."""
    noise = np.random.default_rng(seed).random((count, height, width, channels))
    blurred = ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="reflect")
    low, high = blurred.min(), blurred.max()
    return np.rint(255 * (blurred - low) / (high - low)).astype(np.uint8)


def noise_faces(count, height, width, channels, seed=0):
    """Returns noise uint8, the hardest case for interpolation."""
    shape = (count, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def strong_affine(count, seed=1):
    """Returns affine maps that reach far outside the image."""
    ranges = augment.Ranges(flip=0.5, rotation=40, shift=0.3, zoom=(0.6, 1.5), shear=20)
    return augment.draw(ranges, count, np.random.default_rng(seed))["affine"]


def scipy_resample(image, affine, side, fill):
    """Returns an image [H, W, C] resampled as the module's docstring defines, float64 [side, side, C]."""
    height, width, channels = image.shape
    center = (np.arange(side) + 0.5) / side * 2 - 1
    v, u = np.meshgrid(center, center, indexing="ij")
    x, y = np.tensordot(affine.astype(np.float64), np.stack([u, v, np.ones_like(u)]), axes=1)
    rows, columns = (y + 1) * height / 2 - 0.5, (x + 1) * width / 2 - 0.5
    sample = lambda c: ndimage.map_coordinates(  # noqa: E731
        image[..., c] / 255, [rows, columns], order=1, mode=SCIPY_MODE[fill], cval=VALUE
    )
    return np.stack([sample(c) for c in range(channels)], axis=-1)


@pytest.mark.parametrize("fill", augment.FILLS)
@pytest.mark.parametrize(
    "shape, size", [((48, 48, 1), 96), ((48, 48, 1), 44), ((56, 40, 3), 61), ((2, 3, 1), 7)]
)
def test_resample_equals_scipy(shape, size, fill):
    """The maps also reach far outside the image."""
    images, affine = noise_faces(6, *shape), strong_affine(6)
    affine[0] = [[1, 0, 7.3], [0, -1, -5.1]]
    got = resample(images, affine, size, fill, VALUE)
    assert got.shape == (6, size, size, shape[2]) and got.dtype == np.float32
    for image, matrix, result in zip(images, affine, got, strict=True):
        np.testing.assert_allclose(result, scipy_resample(image, matrix, size, fill), atol=EXACT)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(2, 9), st.integers(2, 9), st.sampled_from([1, 3])),
    st.integers(9, 20),
    st.sampled_from(augment.FILLS),
    st.sampled_from(augment.INTERPOLATIONS),
)
def test_enlarge_is_resample_by_the_identity(shape, size, fill, interpolation):
    images = noise_faces(2, *shape)
    expected = transforms.resample(images, augment.identity_affine(2), size, fill, VALUE, interpolation)
    found = transforms.enlarge(images, size, fill, VALUE, interpolation)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size, channels", [(47, 3), (48, 1), (240, 3)])
def test_identity_and_flip_at_equal_size_are_exact(size, channels):
    images = noise_faces(3, size, size, channels)
    exact = images.astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(resample(images, augment.identity_affine(3), size), exact)
    np.testing.assert_array_equal(resample(images, augment.flip_affine(3), size), exact[:, :, ::-1])


@pytest.mark.parametrize("native, size", [(96, 48), (144, 48), (200, 50)])
def test_shrinking_averages_like_opencv_area(native, size):
    images = noise_faces(2, native, native, 3)
    got = resample(images, augment.identity_affine(2), size)
    for image, result in zip(images, got, strict=True):
        expected = cv2.resize(np.float32(image / 255), (size, size), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(result, expected, atol=EXACT)


def test_shrinking_by_a_map_averages_samples():
    images, affine = noise_faces(4, 96, 96, 1), strong_affine(4)
    got = resample(images, affine, 48)
    for image, matrix, result in zip(images, affine, got, strict=True):
        fine = scipy_resample(image, matrix, 96, "reflect")[..., 0]
        expected = cv2.resize(fine, (48, 48), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(result[..., 0], expected, atol=EXACT)


def test_compose_is_one_map_for_two():
    images = noise_faces(2, 48, 48, 1)
    crop = augment.crop_affine(2, 0, 0, 44 / 48, 44 / 48)
    flipped_corner = augment.compose(augment.flip_affine(2), crop)
    expected = images[:, :, ::-1][:, :44, :44] / 255
    np.testing.assert_allclose(transforms.resample(images, flipped_corner, 44), expected, atol=EXACT)
    corner_flipped = augment.compose(crop, augment.flip_affine(2))
    expected = images[:, :44, :44][:, :, ::-1] / 255
    np.testing.assert_allclose(transforms.resample(images, corner_flipped, 44), expected, atol=EXACT)


@pytest.mark.parametrize(
    "images, fill, message",
    [
        (np.zeros((2, 8, 8, 1), np.float32), "reflect", "uint8 images .* got float32"),
        (np.zeros((2, 8, 8), np.uint8), "reflect", r"got uint8 \[2, 8, 8\]"),
        (np.zeros((2, 1, 8, 1), np.uint8), "reflect", "2 x 2 pixels or more"),
        (np.zeros((2, 8, 8, 1), np.uint8), "mirror", "fill='mirror': expected one of reflect"),
    ],
)
def test_resample_refuses(images, fill, message):
    with pytest.raises(ValueError, match=message):
        transforms.resample(images, augment.identity_affine(2), 8, fill)


def test_contrast_equals_pillow():
    images = noise_faces(4, 48, 48, 1)
    factors = np.float32([0.4, 0.8, 1.0, 1.7])
    parameters = np.stack([np.zeros(4), factors, np.ones(4)], axis=1).astype(np.float32)
    got = np.asarray(transforms.color(images / np.float32(255), parameters))
    for image, factor, result in zip(images, factors, got, strict=True):
        enhanced = ImageEnhance.Contrast(Image.fromarray(image[..., 0])).enhance(float(factor))
        # Pillow rounds the mean and the result to whole gray levels.
        np.testing.assert_allclose(result[..., 0], np.asarray(enhanced) / 255, atol=1.6 / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_order_and_clipping(channels):
    x = noise_faces(3, 16, 16, channels) / np.float32(255)
    parameters = np.float32([[0.2, 1.4, 0.7], [-0.3, 0.5, 2.2], [0, 1, 1]])
    got = transforms.color(x, parameters)
    for image, (brightness, contrast, gamma), result in zip(x, parameters, got, strict=True):
        image = image.astype(np.float64) ** gamma
        image = (image - image.mean()) * contrast + image.mean() + brightness
        np.testing.assert_allclose(result, np.clip(image, 0, 1), atol=EXACT)
    np.testing.assert_array_equal(got[2], x[2])


def test_erase_takes_pixels_whose_centre_is_inside():
    x = np.zeros((1, 4, 4, 1), np.float32)
    got = transforms.erase(x, np.float32([[0.13, 0.12, 0.62, 0.63]]), 1.0)[0, :, :, 0]
    # Centers lie at 0.125, 0.375, 0.625, 0.875.
    np.testing.assert_array_equal(got, [[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_mix_equals_a_loop_over_pixels():
    x = noise_faces(4, 10, 10, 3) / np.float32(255)
    targets = np.eye(7, dtype=np.float32)[[0, 3, 3, 6]]
    parameters = [[0.7, 0, 0, 0, 0], [1, 0.21, 0, 0.68, 0.5], [1, 0, 0, 0, 0], [0.6, 0.5, 0.5, 1, 1]]
    parameters = np.float32(parameters)
    got_x, got_targets = transforms.mix(x, targets, parameters)
    for i, (share, y0, x0, y1, x1) in enumerate(parameters):
        partner = [1, 0, 3, 2][i]
        expected, own = np.zeros((10, 10, 3)), 0.0
        for row in range(10):
            for column in range(10):
                cut = y0 <= (row + 0.5) / 10 < y1 and x0 <= (column + 0.5) / 10 < x1
                weight = 0.0 if cut else share
                own += weight / 100
                mixed = weight * x[i, row, column] + (1 - weight) * x[partner, row, column]
                expected[row, column] = mixed
        np.testing.assert_allclose(got_x[i], expected, atol=1e-6)
        np.testing.assert_allclose(got_targets[i], own * targets[i] + (1 - own) * targets[partner], atol=1e-6)
    # Rows 2 to 6 and columns 0 to 4: a quarter of the pixels instead of 0.47 * 0.5 of the area.
    np.testing.assert_allclose(got_targets[1], 0.75 * targets[1] + 0.25 * targets[0], atol=1e-6)


def test_an_odd_batch_is_not_mixed():
    with pytest.raises(ValueError, match="has 3 faces, an odd number: choose a batch size"):
        transforms.mix(np.zeros((3, 4, 4, 1), np.float32), np.zeros((3, 7)), augment.identity(3)["mix"])


def test_apply_runs_its_steps_in_order():
    images = noise_faces(6, 48, 48, 1)
    ranges = augment.Ranges(rotation=15, contrast=(0.5, 1.5), erasing=1, mixup=1, cutmix=1)
    batch = {"image": images, "target": np.eye(7, dtype=np.float32)[:6]}
    batch |= augment.draw(ranges, 6, np.random.default_rng(0))
    x, targets = transforms.apply(batch, 40, "constant", mean=0.4)
    expected = transforms.resample(images, batch["affine"], 40, "constant", 0.4)
    expected = transforms.erase(transforms.color(expected, batch["color"]), batch["erase"], 0.4)
    expected, expected_targets = transforms.mix(expected, batch["target"], batch["mix"])
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(targets, expected_targets)


def test_apply_skips_what_the_batch_does_not_bring():
    batch = {"image": noise_faces(3, 48, 48, 1), "target": np.zeros((3, 7), np.float32)}
    x, _ = transforms.apply({**batch, "affine": augment.identity_affine(3)}, 48)
    np.testing.assert_array_equal(x, batch["image"] * np.float32(1 / 255))


SHARDED = """
import functools, json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from fer_jax.data import augment, transforms
rng = np.random.default_rng(0)
ranges = augment.Ranges(flip=0.5, rotation=15, erasing=1, contrast=(0.5, 1.5), mixup=1, cutmix=1)
batch = {"image": rng.integers(0, 256, (16, 48, 48, 1), dtype=np.uint8),
         "target": np.eye(16, dtype=np.float32), **augment.draw(ranges, 16, rng)}
apply = functools.partial(transforms.apply, size=40)
alone = jax.jit(apply)(batch)
rows = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
spread = jax.jit(apply, in_shardings=(rows,), out_shardings=rows).lower(batch).compile()
hlo = spread.as_text()
error = max(float(abs(np.asarray(a) - np.asarray(b)).max())
            for a, b in zip(alone, spread(jax.device_put(batch, rows))))
collectives = ("all-reduce", "all-gather", "collective-permute", "all-to-all")
exchanged = [word for word in collectives if word in hlo]
print(json.dumps({"devices": len(jax.devices()), "error": error, "exchanged": exchanged}))
"""


def test_a_sharded_batch_needs_no_exchange_between_devices(forked):
    (ran,) = forked("python", [SHARDED], devices=8)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["devices"] == 8 and result["exchanged"] == []
    assert result["error"] < EXACT


def test_zoom_above_one_enlarges_and_rotation_agrees_with_opencv():
    image = smooth_faces(1, 48, 48, 1)
    affine = augment.draw(augment.Ranges(rotation=30, zoom=(1.3, 1.3)), 1, np.random.default_rng(0))["affine"]
    angle = np.rad2deg(np.arctan2(affine[0, 1, 0], affine[0, 0, 0]))
    forward, pixels = cv2.getRotationMatrix2D((23.5, 23.5), float(angle), 1.3), np.float32(image[0, ..., 0])
    expected = cv2.warpAffine(pixels / 255, forward, (48, 48), borderMode=cv2.BORDER_REFLECT)
    got = transforms.resample(image, affine, 48)[0, ..., 0]
    np.testing.assert_allclose(got, expected, atol=2 * OPENCV)
