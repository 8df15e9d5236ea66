"""Tests classification metrics against scikit-learn and values computed by hand."""

import numpy as np
import pytest
from helpers import random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fer_jax.evaluation.metrics import classification


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(1, 200), st.sets(st.integers(0, 6), max_size=6))
def test_metrics_are_scikit_learns(seed, count, absent):
    probs, labels = random_case(seed, count, absent=absent)
    predicted = probs.argmax(axis=1)
    matrix = classification.confusion_matrix(probs, labels)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted, labels=range(7)))
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    found = classification.per_class(matrix)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(found[name], values, atol=1e-12)
    np.testing.assert_array_equal(found["predicted"], np.bincount(predicted, minlength=7))
    accuracy = metrics.accuracy_score(labels, predicted)
    present = {"average": "macro", "labels": np.unique(labels), "zero_division": 0}
    assert classification.accuracy(probs, labels) == accuracy
    assert classification.scores(matrix) == pytest.approx(
        {
            "accuracy": accuracy,
            "balanced_accuracy": metrics.recall_score(labels, predicted, **present),
            "macro_f1": metrics.f1_score(labels, predicted, average="macro", zero_division=0),
            "weighted_f1": metrics.f1_score(labels, predicted, average="weighted", zero_division=0),
        },
        abs=1e-12,
    )
    loss = metrics.log_loss(labels, probs, labels=range(7))
    assert classification.nll(probs, labels).mean() == pytest.approx(loss, abs=1e-12)
    brier = metrics.brier_score_loss(labels, probs, labels=range(7))
    assert classification.brier(probs, labels).mean() == pytest.approx(brier, abs=1e-12)


def test_a_probability_of_zero_costs_what_it_costs_in_scikit_learn():
    probs, labels = np.eye(3)[:2], np.array([0, 2])
    expected = metrics.log_loss(labels, probs, labels=[0, 1, 2])
    assert classification.nll(probs, labels).mean() == pytest.approx(expected, rel=1e-12)
    assert 10 < expected < 30


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.zeros((0, 7)), np.zeros(0, int), "the split is empty"),
        (np.full((2, 7), 1 / 7), np.array([0, 7]), "labels range from 0 to 7, expected 0 to 6"),
        (np.full((2, 7), 1 / 7), np.array([0]), r"got \(2, 7\) and \(1,\)"),
        (np.ones((2, 7)), np.array([0, 1]), r"row 0 is not a probability distribution.*2 of 2"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "row 0"),
    ],
)
def test_bad_input(probs, labels, message):
    with pytest.raises(ValueError, match=message):
        classification.check(probs, labels)
