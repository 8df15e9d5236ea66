"""Tests face crops against Pillow, SciPy, and images computed by hand."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fer_jax.inference.detection.cropping import crop
from fer_jax.inference.structures import Box, Detection

RNG = np.random.default_rng(0)
PICTURE = np.asarray(Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((160, 120)))


def at(left, top, width, height, **more):
    frame = Box(left, top, width, height)
    return Detection(frame, 1.0, frame, **more)


def test_a_whole_picture_of_the_right_size_is_left_as_it_is():
    face = PICTURE[:48, :48]
    np.testing.assert_array_equal(crop(face, at(0, 0, 48, 48), 48, 3), face)
    np.testing.assert_array_equal(crop(face[..., 0], at(0, 0, 48, 48), 48, 1)[..., 0], face[..., 0])


def test_colour_becomes_grey_by_luma_and_grey_is_repeated():
    luma = PICTURE[:48, :48] @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    assert abs(crop(PICTURE, at(0, 0, 48, 48), 48, 1)[..., 0] - luma).max() <= 0.51
    gray = PICTURE[..., 1]
    np.testing.assert_array_equal(
        crop(gray, at(3, 4, 20, 20), 20, 3), np.repeat(gray[4:24, 3:23, None], 3, axis=2)
    )


def test_it_is_scaled_as_datasets_are():
    face = crop(PICTURE, at(10, 20, 64, 96), 32, 3)
    expected = Image.fromarray(PICTURE[20:116, 10:74]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(face, np.asarray(expected))


def test_fractions_of_pixels_count():
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None], 50, axis=0)  # 2 per pixel
    whole, half = (crop(ramp, at(x, 5, 20, 20), 20, 1)[..., 0].astype(float) for x in (10, 10.5))
    np.testing.assert_allclose(half - whole, 1, atol=0.51)


def test_what_lies_outside_mirrors_what_lies_inside():
    padded = np.pad(PICTURE, ((30, 30), (30, 30), (0, 0)), mode="symmetric")
    for left, top in ((-20, -25), (120, 90), (-30, 10)):
        expected = padded[top + 30 : top + 30 + 50, left + 30 : left + 30 + 50]
        np.testing.assert_array_equal(crop(PICTURE, at(left, top, 50, 50), 50, 3), expected)


def test_frames_larger_than_the_picture_and_single_pixels():
    one = np.full((1, 1), 77, np.uint8)
    assert (crop(one, at(0, 0, 1, 1), 8, 1) == 77).all()
    assert (crop(one, at(-5, -5, 11, 11), 8, 3) == 77).all()
    assert crop(PICTURE, at(-200, -300, 600, 700), 24, 3).shape == (24, 24, 3)
    assert crop(PICTURE, at(50.2, 40.7, 0.3, 0.3), 8, 3).shape == (8, 8, 3)


@pytest.mark.parametrize("rotation", (0, 90, 180, 270))
def test_a_picture_on_its_side_is_rotated_back(rotation):
    upright = PICTURE[20:60, 30:70]
    lying = np.rot90(PICTURE, -rotation // 90)  # has to be turned counterclockwise by `rotation`
    height, width = PICTURE.shape[:2]
    # Position of the corner of the square at (30, 20) with side 40, by hand.
    left, top = {
        0: (30, 20),
        90: (height - 60, 30),
        180: (width - 70, height - 60),
        270: (20, width - 70),
    }[rotation]
    np.testing.assert_array_equal(crop(lying, at(left, top, 40, 40, rotation=rotation), 40, 3), upright)


def test_a_tilt_is_turned_back_about_the_frames_centre():
    tilted = ndimage.rotate(PICTURE[..., 0].astype(float), -20, reshape=False, order=3, mode="mirror")
    tilted = tilted.clip(0, 255).astype(np.uint8)  # clockwise by 20 degrees about the image's center
    center = PICTURE[35:85, 55:105, 0].astype(float)
    upright = crop(tilted, at(55, 35, 50, 50, roll=20.0), 50, 1)[..., 0].astype(float)
    leaning = crop(tilted, at(55, 35, 50, 50), 50, 1)[..., 0].astype(float)
    assert abs(upright - center).mean() < 2 < abs(leaning - center).mean()


def test_a_large_tilted_face_is_shrunk_first_and_comes_out_alike():
    large = np.asarray(Image.fromarray(PICTURE).resize((1600, 1200), Image.Resampling.BICUBIC))
    small = crop(PICTURE, at(50, 30, 60, 60, roll=15.0), 24, 3).astype(float)
    found = crop(large, at(500, 300, 600, 600, roll=15.0), 24, 3).astype(float)
    assert abs(found - small).mean() < 2
