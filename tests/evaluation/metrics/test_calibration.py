"""Calibration and abstaining, held against scikit-learn, pandas and answers worked out by hand."""

import numpy as np
import pandas
import pytest
import scipy.optimize
import scipy.special
from helpers import random_case
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator

from fer_jax.evaluation.metrics import calibration, classification


def test_reliability_against_scikit_learn():
    probs, labels = random_case(5, count=2000)
    right = probs.argmax(axis=1) == labels
    table = calibration.reliability(probs, labels)
    accuracy, confidence = calibration_curve(right, probs.max(axis=1), n_bins=15)
    filled = table["count"] > 0
    np.testing.assert_allclose(table["accuracy"][filled], accuracy)
    np.testing.assert_allclose(table["confidence"][filled], confidence)
    assert table["count"].sum() == 2000
    expected = (table["count"][filled] * abs(accuracy - confidence)).sum() / 2000
    assert calibration.ece(probs, labels) == pytest.approx(expected, abs=1e-12)


def test_ece_by_hand():
    # Two bins: confidence .6 and .8 in (.5, 1], one right; nothing below.
    probs = np.array([[0.6, 0.4], [0.2, 0.8]])
    assert calibration.ece(probs, np.array([0, 0]), bins=2) == pytest.approx(0.2)
    # Four bins: |.6 - 1| and |.8 - 0|, each with half of the images.
    assert calibration.ece(probs, np.array([0, 0]), bins=4) == pytest.approx(0.6)
    # A confidence on an edge belongs to the bin below.
    table = calibration.reliability(np.array([[0.5, 0.5]]), np.array([0]), bins=2)
    assert table["count"].tolist() == [1, 0]


def test_adaptive_bins_are_pandas_quantiles():
    probs, labels = random_case(2, count=777)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    bins = pandas.qcut(confidence, 15)
    table = pandas.DataFrame({"gap": right - confidence}).groupby(bins, observed=True)["gap"]
    expected = (table.mean().abs() * table.count()).sum() / 777
    assert calibration.ece(probs, labels, adaptive=True) == pytest.approx(expected, abs=1e-12)
    counts = calibration.reliability(probs, labels, adaptive=True)["count"]
    np.testing.assert_array_equal(counts, table.count())
    assert counts.max() - counts.min() <= 1


def test_equal_confidences_share_a_bin_whatever_their_order():
    probs = np.tile([[0.7, 0.3]], (40, 1))
    labels = np.repeat([0, 1], 20)
    for order in (np.arange(40), np.arange(40)[::-1]):
        assert calibration.ece(probs, labels[order], adaptive=True) == pytest.approx(0.2)


class Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its input."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return self.classes_[x.argmax(axis=1)]

    def decision_function(self, x):
        return x


def test_temperature_is_scikit_learns():
    probs, labels = random_case(8, count=800)
    logits = 2.5 * np.log(probs)  # too sure
    sure = scipy.special.softmax(logits, axis=1)
    model = FrozenEstimator(Logits().fit(logits, labels))
    reference = CalibratedClassifierCV(model, method="temperature").fit(logits, labels)
    temperature = calibration.fit_temperature(sure, labels)
    # scikit-learn stops at a tolerance of its own.
    np.testing.assert_allclose(
        calibration.rescale(sure, temperature), reference.predict_proba(logits), atol=2e-4
    )
    slope = scipy.optimize.approx_fprime(
        [temperature], lambda t: metrics.log_loss(labels, scipy.special.softmax(logits / t[0], axis=1))
    )
    assert abs(slope[0]) < 1e-4


def test_rescaling_changes_no_prediction_and_undoes_itself():
    probs, _ = random_case(9)
    for temperature in (0.3, 1.0, 4.0):
        scaled = calibration.rescale(probs, temperature)
        np.testing.assert_array_equal(scaled.argmax(axis=1), probs.argmax(axis=1))
        np.testing.assert_allclose(scaled.sum(axis=1), 1)
        np.testing.assert_allclose(calibration.rescale(scaled, 1 / temperature), probs, atol=1e-12)
    certain = calibration.rescale(np.eye(7), 2.0)
    assert np.isfinite(certain).all() and certain[0, 0] > 0.99


def test_what_a_checkpoint_keeps():
    probs, labels = random_case(10)
    found = calibration.calibrate(probs, labels)
    assert found["loss_before"] == pytest.approx(metrics.log_loss(labels, probs, labels=range(7)))
    after = metrics.log_loss(labels, calibration.rescale(probs, found["temperature"]), labels=range(7))
    assert found["loss_after"] == pytest.approx(after)
    assert after < found["loss_before"]


def test_cross_rescaling_takes_each_halfs_temperature_from_the_other():
    probs, labels = random_case(12, count=600)
    groups = np.repeat(np.arange(300), 2)
    scaled = calibration.cross_rescale(probs, labels, groups)
    # An image's own temperature, from two of its classes.
    ratio = np.log(probs[:, 0] / probs[:, 1]) / np.log(scaled[:, 0] / scaled[:, 1])
    found = np.unique(ratio.round(6))
    assert len(found) == 2
    assert (ratio[::2].round(6) == ratio[1::2].round(6)).all()  # groups stay together
    for temperature in found:
        others = ratio.round(6) != temperature
        assert calibration.fit_temperature(probs[others], labels[others]) == pytest.approx(
            temperature, abs=1e-4
        )


def test_risk_and_coverage_by_hand():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 1])  # right, wrong, right, wrong
    curve = calibration.risk_coverage(probs, labels)
    np.testing.assert_allclose(curve["threshold"], [0.9, 0.8, 0.6])
    np.testing.assert_allclose(curve["coverage"], [0.25, 0.75, 1])
    np.testing.assert_allclose(curve["risk"], [0, 1 / 3, 1 / 2])
    assert calibration.aurc(curve) == pytest.approx(0 * 0.25 + 1 / 3 * 0.5 + 1 / 2 * 0.25)
    assert calibration.answering(curve, 0.5) == pytest.approx(
        {"threshold": 0.8, "coverage": 0.75, "accuracy": 2 / 3}
    )
    assert calibration.answering(curve, 0.25)["accuracy"] == 1
    assert calibration.answering(curve, 1.0)["accuracy"] == 0.5


def test_risk_at_a_threshold_is_the_error_rate_of_those_above_it():
    probs, labels = random_case(14, count=300)
    curve = calibration.risk_coverage(probs, labels)
    confidence, wrong = probs.max(axis=1), probs.argmax(axis=1) != labels
    for place in range(0, len(curve["risk"]), 37):
        kept = confidence >= curve["threshold"][place]
        assert curve["risk"][place] == pytest.approx(wrong[kept].mean())
        assert curve["coverage"][place] == pytest.approx(kept.mean())
    assert curve["risk"][-1] == pytest.approx(1 - classification.accuracy(probs, labels))
