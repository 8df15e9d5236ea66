"""Tests the figures of an evaluation: they show the data, readable and without overlaps."""

import numpy as np
import pytest
from helpers import random_case
from matplotlib.container import BarContainer
from PIL import Image
from sklearn import metrics
from sklearn.calibration import calibration_curve

from fer_jax import plotting
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import plots
from fer_jax.evaluation.report import report

pytestmark = pytest.mark.drawn

PREDICTIONS = random_case(0, count=300)  # probabilities [300, 7] and labels [300]


def assert_png(path, size):
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", size)
        assert np.asarray(picture.convert("L")).std() > 5  # not blank


def boxes(figure, artists):
    """Returns the bounding boxes of artists, in pixels."""
    figure.canvas.draw()
    return [artist.get_window_extent() for artist in artists]


def test_confusion_shows_counts_and_shares(tmp_path):
    matrix = np.random.default_rng(0).integers(0, 40, (7, 7))
    matrix[5, 2] = 1500  # the darkest
    matrix[3] = 0  # a class without images
    figure = plots.plot_confusion(matrix, EMOTIONS, tmp_path / "c.png")
    assert_png(tmp_path / "c.png", (1375, 616))
    left, right, bar = figure.axes
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for axis, texts in (
        (left, [f"{n:,}" for n in matrix.flat]),
        (right, [f"{100 * v:.1f}" for v in shares.flat]),
    ):
        assert [text.get_text() for text in axis.texts] == texts
        np.testing.assert_allclose(axis.images[0].get_array(), shares)
        assert [text.get_text() for text in axis.get_xticklabels()] == list(EMOTIONS)
        assert [text.get_text() for text in axis.get_yticklabels()] == list(EMOTIONS)
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
        # Row 5, column 2 is at x = 2, y = 5, and the darkest cell.
        brightness = axis.images[0].to_rgba(axis.images[0].get_array())[..., :3].sum(axis=-1)
        assert np.unravel_index(brightness.argmin(), (7, 7)) == (5, 2)
        assert axis.texts[5 * 7 + 2].get_position() == (2, 5)
        assert axis.texts[5 * 7 + 2].get_color() == "white"
    assert bar.get_ylabel()


def test_reliability_bars_are_scikit_learns(tmp_path):
    probs, labels = PREDICTIONS
    figures = report.figures(probs, labels, None, EMOTIONS)
    scaled = np.sqrt(probs) / np.sqrt(probs).sum(axis=1, keepdims=True)
    table = report.figures(scaled, labels, None, EMOTIONS)["reliability"]
    figures["calibrated"] = {"temperature": 2.0, "ece": 0.056, "reliability": table}
    figure = plots.plot_reliability(figures | {"ece": 0.1234}, tmp_path / "r.png")
    assert_png(tmp_path / "r.png", (704, 792))
    top, bottom = figure.axes
    right, confidence = probs.argmax(axis=1) == labels, probs.max(axis=1)
    heights, marks = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose([bar.get_height() for bar in top.patches], heights)
    by_label = {line.get_label(): line for line in top.lines}
    np.testing.assert_allclose(by_label["mean confidence of the bin"].get_ydata(), marks)
    counts = np.histogram(confidence, 15, (0, 1))[0]
    np.testing.assert_array_equal([bar.get_height() for bar in bottom.patches], counts)
    assert top.get_ylabel() and bottom.get_xlabel() and bottom.get_ylabel()
    title = top.get_title()
    assert "ECE 12.3 points" in title and f"accuracy {100 * right.mean():.1f} %" in title
    assert ("over-confident" in title) == (confidence.mean() > right.mean())
    after = by_label["with temperature 2.00 (ECE 5.6 points)"].get_xydata()
    heights, marks = calibration_curve(scaled.argmax(axis=1) == labels, scaled.max(axis=1), n_bins=15)
    np.testing.assert_allclose(after, np.stack([marks, heights], axis=1))
    # The legend covers neither axis.
    (legend,) = figure.legends
    legend, *axes = boxes(figure, [legend, top, bottom])
    assert not any(legend.overlaps(axis) for axis in axes) and (legend.min >= 0).all()


def test_risk_coverage_ends_at_the_accuracy(tmp_path):
    probs, labels = PREDICTIONS
    figures = report.figures(probs, labels, None, EMOTIONS)
    figure = plots.plot_risk_coverage(figures, tmp_path / "c.png")
    assert_png(tmp_path / "c.png", (770, 506))
    (axis,) = figure.axes
    curve = next(line for line in axis.lines if line.get_label() == "most confident first")
    assert curve.get_xdata()[-1] == 1 and curve.get_ydata()[-1] == pytest.approx(figures["accuracy"])
    surest = probs.max(axis=1).argmax()
    assert curve.get_ydata()[0] == (probs[surest].argmax() == labels[surest])


def test_per_class_bars_and_their_numbers(tmp_path):
    probs, labels = PREDICTIONS
    per_class = report.figures(probs, labels, None, EMOTIONS)["per_class"]
    figure = plots.plot_per_class(per_class, 0.456, tmp_path / "p.png")
    assert_png(tmp_path / "p.png", (1100, 528))
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["precision", "recall", "F1"]
    numbers = [text.get_text() for text in axis.texts]
    scores = metrics.precision_recall_fscore_support(labels, probs.argmax(axis=1), zero_division=0)
    bars = [container for container in axis.containers if isinstance(container, BarContainer)]
    for i, values in enumerate(scores[:3]):
        np.testing.assert_allclose([bar.get_height() for bar in bars[i]], values)
        assert numbers[7 * i : 7 * i + 7] == [f"{v:.2f}" for v in values]
    ends = bars[1].errorbar.lines[2][0].get_segments()
    for segment, row in zip(ends, per_class.values(), strict=True):
        low, high = row["interval_95"]["recall"]
        np.testing.assert_allclose(segment[:, 1], [min(low, row["recall"]), max(high, row["recall"])])
    for text, name, n in zip(axis.get_xticklabels(), EMOTIONS, scores[3], strict=True):
        assert text.get_text() == f"{name}\n{n} images"
    line = next(line for line in axis.lines if set(line.get_ydata()) == {0.456})
    assert line and "macro F1 0.456" in axis.get_title(loc="left")
    assert axis.get_ylabel() == "score"


@pytest.mark.parametrize(
    ("count", "shape", "size"),
    [(1, (48, 48, 1), (689, 297)), (9, (40, 60, 3), (1378, 495)), (32, (60, 40, 1), (1378, 935))],
)
def test_faces_and_captions_do_not_overlap(tmp_path, count, shape, size):
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    captions = [f"{EMOTIONS[i % 7]}, predicted\nsurprise 100.{i % 10} %" for i in range(count)]
    title = "The most confident mistakes: the label, what it was taken for, how surely"
    figure = plotting.plot_faces(images, captions, title, tmp_path / "f.png")
    assert_png(tmp_path / "f.png", size)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == captions
    for drawn, image in zip(axis.images, images, strict=True):
        np.testing.assert_array_equal(np.asarray(drawn.get_array()).reshape(shape), image)
    things = boxes(figure, [*axis.images, *axis.texts, figure._suptitle])
    for i, box in enumerate(things):
        assert (box.min >= 0).all() and (box.max <= figure.bbox.max).all()
        assert not any(box.overlaps(other) for other in things[:i])
    face = things[0]
    assert face.height / face.width == pytest.approx(shape[0] / shape[1], rel=0.02)
    for face, caption in zip(things[:count], things[count:-1], strict=True):
        assert 0 <= caption.y0 - face.y1 < 12 and abs(caption.x0 + caption.x1 - face.x0 - face.x1) < 4
