"""The figures of merit, held against scikit-learn and against answers worked out by hand."""

import numpy as np
import pytest
from helpers import random_case
from sklearn import metrics

from fer_jax.evaluation.metrics import classification


@pytest.mark.parametrize("absent", [(), (1,), (1, 4, 6)])
@pytest.mark.parametrize("count", [1, 9, 500])
def test_scores_are_scikit_learns(absent, count):
    probs, labels = random_case(seed=count, count=count, absent=absent)
    predicted = probs.argmax(axis=1)
    kwargs = {"zero_division": 0}
    assert classification.accuracy(probs, labels) == metrics.accuracy_score(labels, predicted)
    found = classification.scores(classification.confusion_matrix(probs, labels))
    assert found["accuracy"] == metrics.accuracy_score(labels, predicted)
    assert found["macro_f1"] == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", **kwargs), abs=1e-12
    )
    assert found["weighted_f1"] == pytest.approx(
        metrics.f1_score(labels, predicted, average="weighted", **kwargs), abs=1e-12
    )
    recalls = metrics.recall_score(labels, predicted, average=None, labels=np.unique(labels))
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean(), abs=1e-12)
    matrix = classification.confusion_matrix(probs, labels)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted, labels=range(7)))
    scores = classification.per_class(matrix)
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(scores[name], values, atol=1e-12)
    np.testing.assert_array_equal(scores["predicted"], np.bincount(predicted, minlength=7))


def test_balanced_accuracy_where_scikit_learn_needs_no_convention():
    probs, labels = random_case(0)
    expected = metrics.balanced_accuracy_score(labels, probs.argmax(axis=1))
    found = classification.scores(classification.confusion_matrix(probs, labels))
    assert found["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("absent", [(), (0, 5)])
def test_losses_are_scikit_learns(absent):
    probs, labels = random_case(3, absent=absent)
    classes = list(range(7))
    assert classification.nll(probs, labels).mean() == pytest.approx(
        metrics.log_loss(labels, probs, labels=classes), abs=1e-12
    )
    assert classification.brier(probs, labels).mean() == pytest.approx(
        metrics.brier_score_loss(labels, probs, labels=classes), abs=1e-12
    )


def test_a_probability_of_zero_costs_what_it_costs_in_scikit_learn():
    probs = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    labels = np.array([0, 2])
    expected = metrics.log_loss(labels, probs, labels=[0, 1, 2])
    assert classification.nll(probs, labels).mean() == pytest.approx(expected, rel=1e-12)
    assert 10 < expected < 30


def test_a_model_with_constant_logits():
    """Always the class 3: accuracy and the scores follow from the counts alone."""
    labels = np.repeat(np.arange(7), [4, 1, 5, 10, 6, 3, 6])
    probs = np.tile(np.full(7, 0.1) + 0.3 * np.eye(7)[3], (35, 1))
    scores = classification.scores(classification.confusion_matrix(probs, labels))
    assert scores["accuracy"] == classification.accuracy(probs, labels) == 10 / 35
    assert scores["balanced_accuracy"] == pytest.approx(1 / 7)
    assert scores["macro_f1"] == pytest.approx((20 / 45) / 7)
    assert scores["weighted_f1"] == pytest.approx((20 / 45) * 10 / 35)
    expected = -(10 * np.log(0.4) + 25 * np.log(0.1)) / 35
    assert classification.nll(probs, labels).mean() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.zeros((0, 7)), np.zeros(0, int), "the split is empty"),
        (np.full((2, 7), 1 / 7), np.array([0, 7]), "labels run from 0 to 7, expected 0 to 6"),
        (np.full((2, 7), 1 / 7), np.array([0]), r"got \(2, 7\) and \(1,\)"),
        (np.ones((2, 7)), np.array([0, 1]), r"row 0 is no probability distribution.*2 of 2"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "row 0"),
    ],
)
def test_bad_input(probs, labels, message):
    with pytest.raises(ValueError, match=message):
        classification.check(probs, labels)
