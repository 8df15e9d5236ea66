"""Resampled figures, held against resampling image by image and asking scikit-learn each time."""

import numpy as np
import pytest
import scipy.stats
from helpers import random_case
from sklearn import metrics
from sklearn.calibration import calibration_curve

from fer_jax.evaluation.metrics import bootstrap, calibration, classification


def the_long_way(probs, labels, groups, resamples):
    """Draws groups one by one and asks scikit-learn each time."""
    rng = np.random.default_rng(99)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    found = {name: [] for name in ("accuracy", "macro_f1", "loss", "ece", "recall")}
    for _ in range(resamples):
        drawn = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        y, p = labels[drawn], probs[drawn]
        predicted = p.argmax(axis=1)
        found["accuracy"].append(np.mean(y == predicted))
        found["macro_f1"].append(metrics.f1_score(y, predicted, average="macro", zero_division=0))
        found["loss"].append(metrics.log_loss(y, p, labels=range(7)))
        accuracy, confidence = calibration_curve(y == predicted, p.max(axis=1), n_bins=15)
        edges = np.linspace(0, 1, 16)
        count = np.histogram(p.max(axis=1), edges)[0]
        found["ece"].append((count[count > 0] * abs(accuracy - confidence)).sum() / len(y))
        found["recall"].append(
            metrics.recall_score(y, predicted, labels=range(7), average=None, zero_division=0)
        )
    return {name: np.quantile(values, [0.025, 0.975], axis=0) for name, values in found.items()}


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_against_the_long_way(grouped):
    probs, labels = random_case(7, count=480)
    groups = np.arange(480)
    if grouped:
        # Up to four copies of an image: they carry little, the interval must be the wider for it.
        copies = np.repeat(np.arange(240), np.arange(240) % 4 + 1)
        probs, labels, groups = probs[copies], labels[copies], copies
    expected = the_long_way(probs, labels, groups, 200)
    got = bootstrap.resample(probs, labels, groups if grouped else None, resamples=10_000)
    for name, values in expected.items():
        tolerance = 0.06 if name in ("loss", "recall") else 0.02
        np.testing.assert_allclose(bootstrap.interval(got[name]), values, atol=tolerance, err_msg=name)
    if grouped:
        alone = bootstrap.resample(probs, labels)
        together, apart = (np.diff(bootstrap.interval(run["accuracy"])) for run in (got, alone))
        assert together > 1.3 * apart


def test_one_resample_is_what_scikit_learn_says_of_its_images():
    """The draw is the documented one, so that each figure can be worked out from the images drawn."""
    probs, labels = random_case(5, count=90)
    drawn = np.random.default_rng(4).integers(90, size=90)
    y, p = labels[drawn], probs[drawn]
    predicted = p.argmax(axis=1)
    got = bootstrap.resample(probs, labels, resamples=3, seed=4)
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
        "macro_f1": metrics.f1_score(y, predicted, average="macro"),
        "weighted_f1": metrics.f1_score(y, predicted, average="weighted"),
        "loss": metrics.log_loss(y, p, labels=range(7)),
        "brier": metrics.brier_score_loss(y, p, labels=range(7)),
        "mean_confidence": p.max(axis=1).mean(),
        "precision": metrics.precision_score(y, predicted, average=None, labels=range(7), zero_division=0),
        "recall": metrics.recall_score(y, predicted, average=None, labels=range(7), zero_division=0),
        "f1": metrics.f1_score(y, predicted, average=None, labels=range(7), zero_division=0),
        "ece": calibration.ece(p, y),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(got[name][0], value, atol=1e-12, err_msg=name)


def test_the_mean_of_the_resamples_is_near_the_figure():
    probs, labels = random_case(3, count=2000)
    got = bootstrap.resample(probs, labels)
    assert got["adaptive_ece"].mean() == pytest.approx(
        calibration.ece(probs, labels, adaptive=True), abs=0.01
    )
    scores = classification.scores(classification.confusion_matrix(probs, labels))
    for name, value in scores.items():
        assert got[name].mean() == pytest.approx(value, abs=0.003)


def test_as_wide_as_the_binomial():
    probs, labels = random_case(11, count=3589)
    low, high = bootstrap.interval(bootstrap.resample(probs, labels)["accuracy"])
    p = classification.accuracy(probs, labels)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(p * (1 - p) / 3589), rel=0.08)
    assert low < p < high


def test_depends_on_the_seed_and_not_on_the_names_of_groups():
    probs, labels = random_case(13, count=200)

    def run(*args, **kwargs):
        return bootstrap.resample(probs, labels, *args, resamples=50, **kwargs)["macro_f1"].tolist()

    assert run() == run()
    assert run() != run(seed=1)
    assert run() == run(np.arange(200)) == run(np.arange(200) * 10 - 700)


def test_models_are_resampled_alike_so_that_differences_are_paired():
    """The difference of a model to itself is 0 in each resample; of one with a flaw, what the flaw costs."""
    probs, labels = random_case(17, count=400)
    worse = probs.copy()
    worse[:40] = np.roll(worse[:40], 1, axis=1)
    first, second = (bootstrap.resample(p, labels) for p in (probs, worse))
    difference = first["accuracy"] - second["accuracy"]
    assert (first["accuracy"] == bootstrap.resample(probs, labels)["accuracy"]).all()
    right = (probs.argmax(1) == labels).astype(int) - (worse.argmax(1) == labels)
    standard_error = right.std() / np.sqrt(400)
    assert difference.std() == pytest.approx(standard_error, rel=0.1)
    assert np.diff(bootstrap.interval(difference)) < 0.6 * np.diff(bootstrap.interval(first["accuracy"]))


def test_p_value_is_the_normal_ones_where_the_draws_are_normal():
    draws = scipy.stats.norm(1.5, 1).ppf((np.arange(20_000) + 0.5) / 20_000)
    expected = 2 * scipy.stats.norm.sf(1.5)
    assert bootstrap.p_value(draws) == pytest.approx(expected, rel=0.01)
    assert bootstrap.p_value(-draws) == pytest.approx(expected, rel=0.01)
    assert bootstrap.p_value(np.zeros(100)) == 1
    assert bootstrap.p_value(np.ones(100)) == 0.02  # as small as so many resamples can tell
