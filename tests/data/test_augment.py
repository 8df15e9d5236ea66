"""Tests augmentation parameters: shapes, ranges, frequencies, and invalid ranges."""

import numpy as np
import pytest
from helpers import run_python

from fer_jax.data import augment


def test_configurations_do_not_import_jax():
    process = run_python("-c", "import sys, configs.default; sys.exit('jax' in sys.modules)")
    assert process.returncode == 0, process.stderr


def test_draw_gives_float32_of_the_documented_shapes_and_repeats():
    for ranges in augment.PRESETS.values():
        first = augment.draw(ranges, 8, np.random.default_rng(3))
        shapes = {name: value.shape for name, value in first.items()}
        mix = {"mix": (8, 5)} if ranges.mixes else {}
        assert shapes == {"affine": (8, 2, 3), "color": (8, 3), "erase": (8, 4), **mix}
        assert {value.dtype for value in first.values()} == {np.dtype(np.float32)}
        again = augment.draw(ranges, 8, np.random.default_rng(3))
        other = augment.draw(ranges, 8, np.random.default_rng(4))
        for name, value in first.items():
            np.testing.assert_array_equal(value, again[name])
        if ranges is not augment.PRESETS["none"]:
            assert (first["affine"] != other["affine"]).any()


def test_drawing_from_no_range_is_the_identity():
    drawn = augment.draw(augment.Ranges(), 5, np.random.default_rng(0))
    identity = augment.identity(5)
    assert set(drawn) == set(identity) - {"mix"}
    for name, value in drawn.items():
        np.testing.assert_array_equal(value, identity[name])


def draw_one(count=4000, **ranges):
    return augment.draw(augment.Ranges(**ranges), count, np.random.default_rng(0))


def test_drawn_maps_stay_in_range():
    flips = draw_one(flip=0.3)["affine"][:, 0, 0]
    assert set(flips) == {-1, 1} and abs(np.mean(flips < 0) - 0.3) < 0.03
    rotation = draw_one(rotation=15)["affine"]
    angle = np.rad2deg(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))
    assert 14.9 < angle.max() <= 15.001 and -15.001 <= angle.min() < -14.9
    np.testing.assert_allclose(np.linalg.det(rotation[:, :, :2]), 1, atol=1e-6)
    shift = draw_one(shift=0.12)["affine"][:, :, 2]
    assert 0.239 < shift.max() <= 0.2401 and -0.2401 <= shift.min() < -0.239
    zoom = draw_one(zoom=(0.8, 1.25))["affine"][:, 0, 0]
    assert 0.799 < zoom.min() < 0.805 and 1.245 < zoom.max() < 1.251
    shear = draw_one(shear=20)["affine"][:, 0, 1]
    assert 0.35 < np.abs(shear).max() <= np.tan(np.deg2rad(20)) + 1e-6


def test_drawn_colors_stay_in_range():
    color = draw_one(brightness=0.2, contrast=(0.6, 1.4), gamma=(0.5, 2))["color"]
    np.testing.assert_allclose(color.min(axis=0), [-0.2, 0.6, 0.5], atol=0.01)
    np.testing.assert_allclose(color.max(axis=0), [0.2, 1.4, 2], atol=0.01)
    # Log-uniform, so darker and brighter are equally frequent.
    assert abs(np.mean(color[:, 2] < 1) - 0.5) < 0.03


def test_drawn_boxes_lie_inside_and_have_the_area_asked_for():
    y0, x0, y1, x1 = draw_one(erasing=0.25, erasing_area=(0.05, 0.1))["erase"].T
    area = (y1 - y0) * (x1 - x0)
    assert abs(np.mean(area > 0) - 0.25) < 0.03
    assert np.all((area == 0) | ((area > 0.0499) & (area < 0.1001)))
    assert min(y0.min(), x0.min()) >= 0 and max(y1.max(), x1.max()) <= 1 + 1e-6


def test_drawn_mixing_is_mixup_or_cutmix():
    mixup = draw_one(mixup=0.4)["mix"]
    assert mixup[:, 0].min() >= 0.5 and not mixup[:, 1:].any()
    # E[max(s, 1 - s)] of Beta(0.4, 0.4), computed by quadrature.
    assert abs(mixup[:, 0].mean() - 0.8398) < 0.01
    cutmix = draw_one(cutmix=1.0)["mix"]
    assert (cutmix[:, 0] == 1).all() and cutmix[:, 1:].min() >= 0 and cutmix[:, 1:].max() <= 1
    both = draw_one(mixup=0.4, cutmix=1.0, mix_probability=0.5)["mix"]
    blended, cut = both[:, 0] < 1, both[:, 3] > 0
    assert not (blended & cut).any()
    assert abs(blended.mean() - 0.25) < 0.03 and abs(cut.mean() - 0.25) < 0.03


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"flip": 1.5}, r"config.augment.flip is 1.5; expected a probability in \[0, 1\]"),
        ({"rotation": -3}, "rotation is -3; expected 0"),
        ({"shear": 90}, "shear is 90; expected an angle"),
        ({"zoom": (1.2, 0.8)}, r"zoom is \(1.2, 0.8\); expected \(low, high\)"),
        ({"gamma": (0, 1)}, r"gamma is \(0, 1\); expected"),
        ({"erasing_area": (0.5, 2)}, "erasing_area is .*at most 1"),
        ({"fill": "edge"}, "fill is 'edge'; expected one of reflect, constant"),
    ],
)
def test_ranges_refuse_nonsense(wrong, message):
    with pytest.raises(ValueError, match=message):
        augment.Ranges(**wrong)
