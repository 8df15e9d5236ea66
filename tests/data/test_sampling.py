"""Tests the sampling of faces: class shares, uniformity within classes, and frequencies over epochs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data.sampling import EpochOrder, class_shares

COUNTS = np.array([40, 3, 0, 17, 1])


def epochs(counts, balancing, number):
    """Returns labels [N] and indices [number, N], with a new generator per epoch, as in Grain."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    order = EpochOrder(labels, balancing)
    return labels, np.array([order(len(labels), np.random.default_rng((7, e))) for e in range(number)])


@pytest.mark.parametrize(
    "balancing, expected",
    [(0.0, [0.6, 0.3, 0, 0.1]), (1.0, [1 / 3, 1 / 3, 0, 1 / 3]), (0.5, np.sqrt([6, 3, 0, 1]))],
)
def test_class_shares_by_hand(balancing, expected):
    labels = np.repeat(np.arange(4), (6, 3, 0, 1))
    shares = class_shares(labels, balancing)
    np.testing.assert_allclose(shares, np.asarray(expected) / np.sum(expected), rtol=1e-12)


def test_without_balancing_an_epoch_is_a_permutation():
    labels, (order,) = epochs(COUNTS, 0.0, 1)
    np.testing.assert_array_equal(order, np.random.default_rng((7, 0)).permutation(len(labels)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any), balancing=st.floats(0.01, 1.0)
)
def test_every_epoch_has_the_shares_to_within_a_face(counts, balancing):
    labels, drawn = epochs(counts, balancing, 3)
    quotas = len(labels) * class_shares(labels, balancing)
    for epoch in drawn:
        assert len(epoch) == len(labels)
        assert (abs(np.bincount(labels[epoch], minlength=len(quotas)) - quotas) < 1 + 1e-9).all()
        times = np.bincount(epoch, minlength=len(labels))
        for label in np.unique(labels):
            of_class = times[labels == label]
            assert of_class.max() - of_class.min() <= 1


def test_frequencies_over_many_epochs():
    """Compares frequencies of classes and faces with their standard errors."""
    labels, drawn = epochs(COUNTS, 0.5, 4000)
    quotas = len(labels) * class_shares(labels, 0.5)
    per_class = np.array([np.bincount(labels[epoch], minlength=5) for epoch in drawn])
    # Random rounding of a fraction has a variance of at most 1/4.
    assert (abs(per_class.mean(axis=0) - quotas) < 4 * 0.5 / np.sqrt(4000)).all()
    per_face = np.bincount(drawn.ravel(), minlength=len(labels)) / 4000
    expected = (quotas / np.maximum(COUNTS, 1))[labels]
    assert (abs(per_face - expected) < 5 * 0.6 / np.sqrt(4000)).all()
    # The class frequencies are the same at all positions of an epoch.
    first = np.bincount(labels[drawn[:, 0]], minlength=5) / 4000
    shares = quotas / len(labels)
    assert (abs(first - shares) <= 4 * np.sqrt(shares * (1 - shares) / 4000)).all()
