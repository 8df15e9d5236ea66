"""Tests resampled metrics against scikit-learn, and intervals against normal approximations."""

import numpy as np
import pytest
import scipy.stats
from helpers import random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fer_jax.evaluation.metrics import bootstrap, calibration, classification


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), largest=st.one_of(st.none(), st.integers(-30, 30)), place=st.integers(0, 2))
def test_a_resample_has_the_metrics_of_the_images_drawn(seed, largest, place):
    """Groups are drawn uniformly, whatever their numbers and sizes, by the documented generator."""
    probs, labels = random_case(seed, count=90)
    groups = np.arange(90) if largest is None else np.random.default_rng(seed).integers(-30, largest + 1, 90)
    names = np.unique(groups)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(names), size=len(names)) for _ in range(3)][place]
    images = np.concatenate([np.flatnonzero(groups == names[i]) for i in drawn])
    y, p = labels[images], probs[images]
    predicted, confidence = p.argmax(axis=1), p.max(axis=1)
    average = {"average": None, "labels": range(7), "zero_division": 0}
    recall, f1 = metrics.recall_score(y, predicted, **average), metrics.f1_score(y, predicted, **average)
    bins = calibration.bin_index(probs.max(axis=1), adaptive=True)[images]  # of the entire split
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "balanced_accuracy": recall[np.unique(y)].mean(),
        "macro_f1": metrics.f1_score(y, predicted, average="macro"),
        "weighted_f1": metrics.f1_score(y, predicted, average="weighted"),
        "loss": metrics.log_loss(y, p, labels=range(7)),
        "brier": metrics.brier_score_loss(y, p, labels=range(7)),
        "mean_confidence": confidence.mean(),
        "precision": metrics.precision_score(y, predicted, **average),
        "recall": np.where(np.isin(range(7), y), recall, np.nan),
        "f1": np.where(np.isin(range(7), y), f1, np.nan),
        "ece": calibration.ece(p, y),
        "adaptive_ece": abs(np.bincount(bins, (predicted == y) - confidence)).sum() / len(y),
    }
    got = bootstrap.resample(probs, labels, None if largest is None else groups, resamples=3, seed=seed)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name][place], value, atol=1e-12, err_msg=name)


def test_intervals_are_the_binomial_and_the_mirrored_one():
    probs, labels = random_case(11, count=3589)
    drawn = bootstrap.resample(probs, labels)
    p, ece = classification.accuracy(probs, labels), calibration.ece(probs, labels)
    found = bootstrap.intervals(drawn, {"accuracy": p, "ece": ece})
    expected = p + 1.96 * np.sqrt(p * (1 - p) / 3589) * np.array([-1, 1])
    assert found["accuracy"] == pytest.approx(expected, abs=2e-3)
    low, high = np.quantile(drawn["ece"], (0.025, 0.975))
    assert found["ece"] == pytest.approx([2 * ece - high, 2 * ece - low])
    # The interval is not below 0, and not entirely below the error itself.
    assert bootstrap.intervals({"ece": np.array([0.3, 0.3])}, {"ece": 0.1}) == {"ece": [0.0, 0.1]}


def test_differences_of_models_are_paired():
    probs, labels = random_case(17, count=400)
    worse = probs.copy()
    worse[:40] = np.roll(worse[:40], 1, axis=1)
    first, second = (bootstrap.resample(p, labels)["accuracy"] for p in (probs, worse))
    difference = (probs.argmax(axis=1) == labels).astype(int) - (worse.argmax(axis=1) == labels)
    assert (first - second).std() == pytest.approx(difference.std() / np.sqrt(400), rel=0.1)


def test_p_value_is_the_normal_ones_where_the_draws_are_normal():
    draws = scipy.stats.norm(1.5, 1).ppf((np.arange(20_000) + 0.5) / 20_000)
    expected = 2 * scipy.stats.norm.sf(1.5)
    assert bootstrap.p_value(draws) == pytest.approx(expected, rel=0.01)
    assert bootstrap.p_value(-draws) == pytest.approx(expected, rel=0.01)
    assert bootstrap.p_value(np.zeros(100)) == 1
    assert bootstrap.p_value(np.ones(100)) == 0.02  # the smallest value for this number of resamples
