"""Tests corruptions against independent computations, and their independence of the batch."""

import io

import cv2
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from fer_jax.data.sources import synthetic
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt

NEEDS_NO_CHANCE = ("gaussian_blur", "contrast", "brighter", "darker", "jpeg", "resolution", "eyes_covered",
                   "mouth_covered", "tight_crop", "wide_crop")  # fmt: skip


@pytest.fixture(scope="module")
def faces():
    return synthetic.generate(1, 0, "train")[0]


@pytest.fixture(scope="module")
def gray():
    """Returns plain gray images, on which noise has its nominal moments."""
    return np.full((4, 64, 64, 1), 128, np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_spoiled_alike_in_every_batch(faces, name):
    whole = corrupt(faces, name, 3, seed=5)
    assert whole.shape == faces.shape and whole.dtype == np.uint8
    assert (whole != faces).any(axis=(1, 2, 3)).all()
    order = np.array([4, 0, 2])
    np.testing.assert_array_equal(corrupt(faces[order], name, 3, seed=5, numbers=order), whole[order])
    # Another seed changes random corruptions.
    assert (corrupt(faces, name, 3, seed=6) == whole).all() == (name in NEEDS_NO_CHANCE)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_takes_more_away_in_gray_and_in_color(faces, name):
    away = [abs(corrupt(faces, name, s).astype(int) - faces).mean() for s in SEVERITIES]
    assert away == sorted(away) and away[0] > 0 and away[-1] > 1.3 * away[0]
    color = np.concatenate([faces, faces // 2, 255 - faces], axis=-1)
    assert corrupt(color, name, 2).shape == color.shape


def test_noise_has_its_moments(gray):
    deviation = 255 * 0.08
    noise = corrupt(gray, "gaussian_noise", 2) - 128.0
    assert abs(noise.mean()) < 0.5 and noise.std() == pytest.approx(deviation, rel=0.03)
    shot = corrupt(gray, "shot_noise", 2).astype(float)
    assert shot.mean() == pytest.approx(128, abs=0.7)
    assert shot.std() == pytest.approx(255 * np.sqrt(128 / 255 * 100) / 100, rel=0.03)
    salt = corrupt(gray, "impulse_noise", 5)
    assert (salt == 0).mean() == pytest.approx(0.07, abs=0.006)
    assert (salt == 255).mean() == pytest.approx(0.07, abs=0.006)
    assert set(np.unique(salt)) == {0, 128, 255}


def test_blur_is_opencvs(faces):
    got = corrupt(faces, "gaussian_blur", 5)[0, ..., 0].astype(int)
    expected = cv2.GaussianBlur(faces[0, ..., 0], (11, 11), 1.5 * 48 / 64, borderType=cv2.BORDER_REFLECT)
    assert abs(got - expected).max() <= 1


def test_contrast_and_brightness_by_hand(faces):
    x = faces.astype(np.float64)
    mean = x.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_array_equal(corrupt(faces, "contrast", 4), np.rint(mean + 0.1 * (x - mean)))
    np.testing.assert_array_equal(corrupt(faces, "brighter", 2), np.clip(np.rint(x + 51), 0, 255))
    np.testing.assert_array_equal(corrupt(faces, "darker", 2), np.clip(np.rint(x - 51), 0, 255))


def test_jpeg_and_resolution_are_pillows(faces):
    file = io.BytesIO()
    Image.fromarray(faces[1, ..., 0]).save(file, "JPEG", quality=25)
    np.testing.assert_array_equal(corrupt(faces, "jpeg", 5)[1, ..., 0], Image.open(file))
    small = cv2.resize(faces[1, ..., 0], (16, 16), interpolation=cv2.INTER_AREA)
    expected = Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)
    got = corrupt(faces, "resolution", 5)[1, ..., 0]
    assert abs(got.astype(int) - np.asarray(expected)).max() <= 3  # OpenCV rounds differently
    tiny = faces[:, :12, :12]
    np.testing.assert_array_equal(corrupt(tiny, "resolution", 5), tiny)


def test_bands_lie_over_eyes_and_mouth(faces):
    for name, middle in (("eyes_covered", 0.36), ("mouth_covered", 0.79)):
        changed = (corrupt(faces, name, 5) != faces).any(axis=(0, 2, 3))
        rows = np.flatnonzero(changed) + 0.5
        assert rows.mean() / 48 == pytest.approx(middle, abs=0.02)
        assert len(rows) / 48 == pytest.approx(0.40, abs=0.02)
        covered = corrupt(faces, name, 5)[:, changed]
        expected = np.broadcast_to(np.rint(faces.mean(axis=(1, 2, 3)))[:, None, None, None], covered.shape)
        np.testing.assert_array_equal(covered, expected)


def scipys(image, matrix):
    """Resamples to a square of the longer side; the matrix maps output to input (y, x) from the center."""
    side = max(image.shape)
    offset = (np.array(image.shape) - 1) / 2 - matrix @ np.full(2, (side - 1) / 2)
    how = {"order": 1, "mode": "reflect"}
    return scipy.ndimage.affine_transform(image.astype(float), matrix, offset, (side, side), **how)


def rotations(degrees):
    angle = np.deg2rad(degrees)
    return [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in (angle, -angle)]


def test_geometry_is_scipys(faces):
    image = faces[2, ..., 0]
    for name, scale in (("tight_crop", 0.75), ("wide_crop", 1.25)):
        got = corrupt(faces, name, 5)[2, ..., 0]
        assert abs(got - scipys(image, scale * np.eye(2))).max() <= 1
    got = corrupt(faces, "rotation", 5)[2, ..., 0]
    assert min(abs(got - scipys(image, turn)).max() for turn in rotations(30)) <= 1
    # Images that are not square are rotated first, and then stretched to a square.
    high = np.repeat(faces, 2, axis=1)
    assert corrupt(high, "jpeg", 1).shape == high.shape
    turned = corrupt(high, "rotation", 5)
    assert turned.shape == (len(faces), 96, 96, 1)
    expected = [scipys(high[0, ..., 0], turn @ np.diag([1, 0.5])) for turn in rotations(30)]
    assert min(abs(turned[0, ..., 0] - one).max() for one in expected) <= 1


def test_shift_and_motion_go_as_far_as_they_say():
    image = np.zeros((6, 101, 101, 1), np.uint8)
    image[:, 50, 50] = 255
    for number, moved in enumerate(corrupt(image, "shifted_crop", 5)[..., 0]):
        place = np.array(scipy.ndimage.center_of_mass(moved)) - 50
        assert np.hypot(*place) == pytest.approx(0.20 * 101, abs=0.2), number
    wide = np.zeros((6, 101, 101, 1), np.uint8)
    wide[:, 48:53, 48:53] = 255
    for blurred in corrupt(wide, "motion_blur", 5)[..., 0].astype(float):
        assert blurred.sum() == pytest.approx(25 * 255, rel=0.1)
        ys, xs = np.nonzero(blurred > 4)
        along = np.hypot(np.ptp(ys), np.ptp(xs))
        assert along == pytest.approx(0.22 * 101 + 5, abs=5)


def test_what_cannot_be_spoiled(faces):
    with pytest.raises(ValueError, match="unknown corruption 'fog'; there are: gaussian_noise, shot_noise"):
        corrupt(faces, "fog", 1)
    with pytest.raises(ValueError, match="severity 6: expected one of 1, 2, 3, 4, 5"):
        corrupt(faces, "jpeg", 6)
    with pytest.raises(ValueError, match=r"expected faces uint8 \[N, H, W, 1 or 3\], got float64"):
        corrupt(faces / 255, "jpeg", 1)
