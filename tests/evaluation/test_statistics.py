"""The figures of merit, held against scikit-learn and against answers worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from fer_jax.evaluation import statistics


def random_case(seed, count=500, classes=7, absent=()):
    """Probabilities that are right about half of the time; labels lack the absent classes."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c not in absent]
    labels = rng.choice(present, count)
    logits = rng.normal(size=(count, classes)) + 2 * np.eye(classes)[labels] * rng.random((count, 1))
    probs = np.exp(2 * logits)
    return probs / probs.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("absent", [(), (1,), (1, 4, 6)])
@pytest.mark.parametrize("count", [1, 9, 500])
def test_scores_are_scikit_learns(absent, count):
    probs, labels = random_case(seed=count, count=count, absent=absent)
    predicted = probs.argmax(axis=1)
    kwargs = {"zero_division": 0}
    assert statistics.accuracy(probs, labels) == metrics.accuracy_score(labels, predicted)
    assert statistics.macro_f1(probs, labels) == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", **kwargs), abs=1e-12
    )
    assert statistics.weighted_f1(probs, labels) == pytest.approx(
        metrics.f1_score(labels, predicted, average="weighted", **kwargs), abs=1e-12
    )
    recalls = metrics.recall_score(labels, predicted, average=None, labels=np.unique(labels))
    assert statistics.balanced_accuracy(probs, labels) == pytest.approx(recalls.mean(), abs=1e-12)
    matrix = statistics.confusion_matrix(probs, labels)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted, labels=range(7)))
    scores = statistics.per_class(matrix)
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(scores[name], values, atol=1e-12)
    np.testing.assert_array_equal(scores["predicted"], np.bincount(predicted, minlength=7))


def test_balanced_accuracy_where_scikit_learn_needs_no_convention():
    probs, labels = random_case(0)
    expected = metrics.balanced_accuracy_score(labels, probs.argmax(axis=1))
    assert statistics.balanced_accuracy(probs, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("absent", [(), (0, 5)])
def test_losses_are_scikit_learns(absent):
    probs, labels = random_case(3, absent=absent)
    classes = list(range(7))
    assert statistics.nll(probs, labels) == pytest.approx(
        metrics.log_loss(labels, probs, labels=classes), abs=1e-12
    )
    assert statistics.brier(probs, labels) == pytest.approx(
        metrics.brier_score_loss(labels, probs, labels=classes), abs=1e-12
    )


def test_a_probability_of_zero_costs_what_it_costs_in_scikit_learn():
    probs = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    labels = np.array([0, 2])
    expected = metrics.log_loss(labels, probs, labels=[0, 1, 2])
    assert statistics.nll(probs, labels) == pytest.approx(expected, rel=1e-12)
    assert 10 < expected < 30


def test_reliability_against_scikit_learn():
    probs, labels = random_case(5, count=2000)
    right = probs.argmax(axis=1) == labels
    table = statistics.reliability(probs, labels)
    accuracy, confidence = calibration_curve(right, probs.max(axis=1), n_bins=15)
    filled = table["count"] > 0
    np.testing.assert_allclose(table["accuracy"][filled], accuracy)
    np.testing.assert_allclose(table["confidence"][filled], confidence)
    assert table["count"].sum() == 2000
    expected = (table["count"][filled] * abs(accuracy - confidence)).sum() / 2000
    assert statistics.ece(probs, labels) == pytest.approx(expected, abs=1e-12)


def test_ece_by_hand():
    # Two bins: confidence .6 and .8 in (.5, 1], one right; nothing below.
    probs = np.array([[0.6, 0.4], [0.2, 0.8]])
    assert statistics.ece(probs, np.array([0, 0]), bins=2) == pytest.approx(0.2)
    # Four bins: |.6 - 1| and |.8 - 0|, each with half of the images.
    assert statistics.ece(probs, np.array([0, 0]), bins=4) == pytest.approx(0.6)
    # A confidence on an edge belongs to the bin below.
    table = statistics.reliability(np.array([[0.5, 0.5]]), np.array([0]), bins=2)
    assert table["count"].tolist() == [1, 0]


def test_a_model_with_constant_logits():
    """Always the class 3: accuracy and the scores follow from the counts alone."""
    labels = np.repeat(np.arange(7), [4, 1, 5, 10, 6, 3, 6])
    probs = np.tile(np.full(7, 0.1) + 0.3 * np.eye(7)[3], (35, 1))
    assert statistics.accuracy(probs, labels) == 10 / 35
    assert statistics.balanced_accuracy(probs, labels) == pytest.approx(1 / 7)
    assert statistics.macro_f1(probs, labels) == pytest.approx((20 / 45) / 7)
    assert statistics.weighted_f1(probs, labels) == pytest.approx((20 / 45) * 10 / 35)
    expected = -(10 * np.log(0.4) + 25 * np.log(0.1)) / 35
    assert statistics.nll(probs, labels) == pytest.approx(expected)
    assert statistics.ece(probs, labels) == pytest.approx(0.4 - 10 / 35)


def bootstrap_the_long_way(probs, labels, groups, resamples):
    """Draws groups one by one and asks scikit-learn each time."""
    rng = np.random.default_rng(99)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    scores = []
    for _ in range(resamples):
        drawn = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        y, p = labels[drawn], probs[drawn].argmax(axis=1)
        scores.append((np.mean(y == p), metrics.f1_score(y, p, average="macro", zero_division=0)))
    return np.quantile(scores, [0.025, 0.975], axis=0)


@pytest.mark.parametrize("grouped", [False, True])
def test_bootstrap_interval_against_the_long_way(grouped):
    probs, labels = random_case(7, count=120)
    groups = np.arange(120)
    if grouped:
        # Up to four copies of an image: they carry little, the interval must be the wider for it.
        copies = np.repeat(np.arange(60), np.arange(60) % 4 + 1)
        probs, labels, groups = probs[copies], labels[copies], copies
    expected = bootstrap_the_long_way(probs, labels, groups, 800)
    got = statistics.bootstrap_interval(probs, labels, groups if grouped else None, resamples=20_000)
    np.testing.assert_allclose(got["accuracy"], expected[:, 0], atol=0.02)
    np.testing.assert_allclose(got["macro_f1"], expected[:, 1], atol=0.02)
    if grouped:
        alone = statistics.bootstrap_interval(probs, labels)
        assert np.diff(got["accuracy"]) > 1.3 * np.diff(alone["accuracy"])


def test_bootstrap_is_as_wide_as_the_binomial():
    probs, labels = random_case(11, count=3589)
    low, high = statistics.bootstrap_interval(probs, labels)["accuracy"]
    p = statistics.accuracy(probs, labels)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(p * (1 - p) / 3589), rel=0.08)
    assert low < p < high


def test_bootstrap_depends_on_seed_and_not_on_group_names():
    probs, labels = random_case(13, count=200)
    run = statistics.bootstrap_interval
    assert run(probs, labels) == run(probs, labels)
    assert run(probs, labels) != run(probs, labels, seed=1)
    alone = run(probs, labels, np.arange(200))
    assert alone == run(probs, labels, np.arange(200) * 10 + 5)
    np.testing.assert_allclose(alone["accuracy"], run(probs, labels)["accuracy"], atol=0.02)


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
        statistics.check(probs, labels)
