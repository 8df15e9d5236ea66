"""Tests that the figures of a run show its metrics."""

import numpy as np
import pytest
from PIL import Image

from fer_jax.evaluation.report import training_curves

KEYS = ("epoch", "loss", "accuracy", "learning_rate", "images_per_second")
TRAIN = [
    {"kind": "train", **dict(zip(KEYS, values, strict=True))}
    for values in ((0.5, 1.9, 0.2, 0.05, 90), (1.0, 1.7, 0.3, 0.10, 80), (3.0, 1.2, 0.6, 0.02, 85))
]
# Each metric has its maximum at another epoch; the accuracy reaches it twice.
EVALS = [
    {"kind": "eval", "epoch": 1, "loss": 1.8, "accuracy": 0.30, "balanced_accuracy": 0.20, "macro_f1": 0.25},
    {"kind": "eval", "epoch": 2, "loss": 1.5, "accuracy": 0.50, "balanced_accuracy": 0.40, "macro_f1": 0.35},
    {"kind": "eval", "epoch": 3, "loss": 1.6, "accuracy": 0.50, "balanced_accuracy": 0.38, "macro_f1": 0.39},
]
NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
BEST = {"accuracy": (2, 0.50), "balanced_accuracy": (2, 0.40), "macro_f1": (3, 0.39)}
RECORDS = [TRAIN[0], TRAIN[1], EVALS[0], EVALS[1], TRAIN[2], EVALS[2]]


def lines(axis):
    """Returns the points [N, 2] of each line by label."""
    return {line.get_label(): line.get_xydata() for line in axis.lines}


def points(rows, key):
    return [(row["epoch"], row[key]) for row in rows]


@pytest.mark.drawn
def test_curves_hold_the_records(tmp_path):
    figure = training_curves.plot_training(RECORDS, tmp_path / "curves.png")
    loss, score, rate, speed = figure.axes
    np.testing.assert_array_equal(lines(loss)["training batches, augmented"], points(TRAIN, "loss"))
    np.testing.assert_array_equal(lines(loss)["evaluation"], points(EVALS, "loss"))
    found = lines(score)
    np.testing.assert_array_equal(found["accuracy of training batches, augmented"], points(TRAIN, "accuracy"))
    for key, name in NAMES.items():
        np.testing.assert_array_equal(found[f"evaluation, {name}"], points(EVALS, key))
    np.testing.assert_array_equal(lines(rate)["learning rate"], points(TRAIN, "learning_rate"))
    np.testing.assert_array_equal(lines(speed)["images/s"], points(TRAIN, "images_per_second"))
    for axis in figure.axes:
        assert axis.get_xlabel() == "epoch" and axis.get_title()
    with Image.open(tmp_path / "curves.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 800))
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("metric", BEST)
def test_the_circle_is_at_the_first_best_of_the_selection_metric(tmp_path, metric):
    figure = training_curves.plot_training(RECORDS, tmp_path / "curves.png", metric=metric)
    circles = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert len(circles) == 1
    assert circles[0].get_xydata().tolist() == [list(BEST[metric])]
    epoch, value = BEST[metric]
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert f"best {NAMES[metric]}: {value:.4f} at epoch {epoch:.1f}" in texts
    without = training_curves.plot_training(TRAIN, tmp_path / "curves.png")  # no evaluations
    assert not [line for line in without.axes[1].lines if line.get_marker() == "o"]


@pytest.mark.drawn
def test_confusion_image_is_dark_where_the_images_are():
    matrix = np.array([[1, 1, 18], [5, 4, 3], [3, 3, 3]])
    image = training_curves.confusion_image(matrix, ["a", "b", "c"])
    assert image.shape == (550, 600, 3) and image.dtype == np.uint8
    red, blue = image[..., 0].astype(int), image[..., 2].astype(int)
    dark = np.argwhere((red < 40) & (blue > 90))  # only the shade of 18 of 20 is
    shaded = np.argwhere(blue - red > 5)  # all cells: bluer than gray
    place = (dark.mean(axis=0) - shaded.min(axis=0)) / (np.ptp(shaded, axis=0) + 1)
    np.testing.assert_allclose(place, [1 / 6, 5 / 6], atol=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_save_image_keeps_the_pixels(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    training_curves.save_image(image, tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture).reshape(5, 7, channels), image)
