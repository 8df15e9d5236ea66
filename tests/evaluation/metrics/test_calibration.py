"""Tests calibration and abstention against scikit-learn, pandas, and values computed by hand."""

import numpy as np
import pandas
import pytest
import scipy.optimize
import scipy.special
from helpers import random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator

from fer_jax.evaluation.metrics import calibration, classification

SEEDS = st.integers(0, 1000)
quick = settings(max_examples=8, deadline=None, derandomize=True)


@quick
@given(SEEDS)
def test_reliability_is_scikit_learns_and_adaptive_bins_are_pandas_quantiles(seed):
    probs, labels = random_case(seed, count=777)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    table = calibration.reliability(probs, labels)
    filled = table["count"] > 0
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose(table["accuracy"][filled], accuracy)
    np.testing.assert_allclose(table["confidence"][filled], mean)
    expected = (table["count"][filled] * abs(accuracy - mean)).sum() / 777
    assert table["count"].sum() == 777
    assert calibration.ece(probs, labels) == pytest.approx(expected, abs=1e-12)

    bins = pandas.qcut(confidence, 15)
    groups = pandas.DataFrame({"gap": right - confidence}).groupby(bins, observed=True)["gap"]
    expected = (groups.mean().abs() * groups.count()).sum() / 777
    assert calibration.ece(probs, labels, adaptive=True) == pytest.approx(expected, abs=1e-12)
    counts = calibration.reliability(probs, labels, adaptive=True)["count"]
    np.testing.assert_array_equal(counts, groups.count())


def test_ece_by_hand():
    # Two bins: confidence .6 and .8 in (.5, 1], one right; nothing below.
    probs = np.array([[0.6, 0.4], [0.2, 0.8]])
    assert calibration.ece(probs, np.array([0, 0]), bins=2) == pytest.approx(0.2)
    # Four bins: |.6 - 1| and |.8 - 0|, each with half of the images.
    assert calibration.ece(probs, np.array([0, 0]), bins=4) == pytest.approx(0.6)
    # A confidence on an edge is in the bin below.
    table = calibration.reliability(np.array([[0.5, 0.5]]), np.array([0]), bins=2)
    assert table["count"].tolist() == [1, 0]
    # Equal confidences are in the same bin, whatever their order.
    probs, labels = np.tile([[0.7, 0.3]], (40, 1)), np.repeat([0, 1], 20)
    for order in (labels, labels[::-1]):
        assert calibration.ece(probs, order, adaptive=True) == pytest.approx(0.2)


class Logits(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier whose decision function is its input."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return self.classes_[x.argmax(axis=1)]

    def decision_function(self, x):
        return x


def test_temperature_is_scikit_learns():
    probs, labels = random_case(8, count=800)
    logits = 2.5 * np.log(probs)  # overconfident
    model = FrozenEstimator(Logits().fit(logits, labels))
    reference = CalibratedClassifierCV(model, method="temperature").fit(logits, labels)
    overconfident = scipy.special.softmax(logits, axis=1)
    found = calibration.calibrate(overconfident, labels)
    scaled = calibration.rescale(overconfident, found["temperature"])
    # scikit-learn has its own tolerance.
    np.testing.assert_allclose(scaled, reference.predict_proba(logits), atol=2e-4)
    assert found["loss_before"] == pytest.approx(metrics.log_loss(labels, overconfident, labels=range(7)))
    assert found["loss_after"] == pytest.approx(metrics.log_loss(labels, scaled, labels=range(7)))
    slope = scipy.optimize.approx_fprime(
        [found["temperature"]],
        lambda t: metrics.log_loss(labels, scipy.special.softmax(logits / t[0], axis=1)),
    )
    assert abs(slope[0]) < 1e-4


@quick
@given(SEEDS, st.floats(0.2, 5))
def test_rescaling_changes_no_prediction_and_can_be_undone(seed, temperature):
    probs, _ = random_case(seed)
    scaled = calibration.rescale(probs, temperature)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probs.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_allclose(calibration.rescale(scaled, 1 / temperature), probs, atol=1e-12)
    certain = calibration.rescale(np.eye(7), temperature)
    assert np.isfinite(certain).all() and certain[0, 0] > 0.99


def test_cross_rescaling_takes_the_temperature_of_the_other_half():
    probs, labels = random_case(12, count=600)
    groups = np.repeat(np.arange(300), 2)
    scaled = calibration.cross_rescale(probs, labels, groups)
    # The temperature of each image, from two of its classes.
    ratio = np.log(probs[:, 0] / probs[:, 1]) / np.log(scaled[:, 0] / scaled[:, 1])
    ratio = ratio.round(6)
    assert (ratio[::2] == ratio[1::2]).all()  # groups stay together
    found = np.unique(ratio)
    assert len(found) == 2
    for temperature in found:
        others = ratio != temperature
        expected = calibration.fit_temperature(probs[others], labels[others])
        assert temperature == pytest.approx(expected, abs=1e-4)


def test_risk_and_coverage_by_hand():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.6, 0.4]])
    curve = calibration.risk_coverage(probs, np.array([0, 1, 1, 1]))  # right, wrong, right, wrong
    np.testing.assert_allclose(curve["threshold"], [0.9, 0.8, 0.6])
    np.testing.assert_allclose(curve["coverage"], [0.25, 0.75, 1])
    np.testing.assert_allclose(curve["risk"], [0, 1 / 3, 1 / 2])
    assert calibration.aurc(curve) == pytest.approx(0 * 0.25 + 1 / 3 * 0.5 + 1 / 2 * 0.25)
    expected = {"threshold": 0.8, "coverage": 0.75, "accuracy": 2 / 3}
    assert calibration.answering(curve, 0.5) == pytest.approx(expected)
    assert calibration.answering(curve, 0.25)["accuracy"] == 1
    assert calibration.answering(curve, 1.0)["accuracy"] == 0.5


@quick
@given(SEEDS, st.integers(1, 3))
def test_risk_is_the_error_rate_above_the_threshold(seed, decimals):
    probs, labels = random_case(seed, count=60)
    probs = probs.round(decimals)  # so that confidences are equal
    curve = calibration.risk_coverage(probs, labels)
    confidence, wrong = probs.max(axis=1), probs.argmax(axis=1) != labels
    np.testing.assert_array_equal(curve["threshold"], np.unique(confidence)[::-1])
    for threshold, coverage, risk in zip(*curve.values(), strict=True):
        kept = confidence >= threshold
        assert (coverage, risk) == pytest.approx((kept.mean(), wrong[kept].mean()))
    assert curve["risk"][-1] == pytest.approx(1 - classification.accuracy(probs, labels))
