"""The bootstrap of means against SciPy's and against drawing one by one."""

import numpy as np
import pytest
import scipy.stats

from fer_jax.evaluation import resampling


def test_intervals_are_scipys():
    values = np.random.default_rng(0).random((300, 2)) < 0.7
    got = resampling.resampled_means(values, resamples=4000)
    assert got.shape == (4000, 2)
    for column, means in zip(values.T, got.T, strict=True):
        expected = scipy.stats.bootstrap(
            (column,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert resampling.interval(means) == pytest.approx(list(expected), abs=0.006)


def test_groups_are_drawn_together():
    """Copies add nothing: 40 images six times each are 40 images."""
    single = np.random.default_rng(0).random((40, 1))
    copies, groups = np.repeat(single, 6, axis=0), np.repeat(np.arange(40), 6)
    got = resampling.resampled_means(copies, groups)
    np.testing.assert_allclose(got, resampling.resampled_means(single), atol=1e-12)
    # Groups of unequal sizes, one by one.
    groups = np.sort(np.random.default_rng(1).integers(0, 25, 240))
    got = resampling.resampled_means(copies, groups, resamples=3000)
    rng, units = np.random.default_rng(2), np.unique(groups)
    drawn = []
    for _ in range(3000):
        chosen = rng.choice(units, len(units))
        drawn.append(np.concatenate([copies[groups == unit] for unit in chosen]).mean())
    np.testing.assert_allclose(
        np.quantile(got, [0.05, 0.5, 0.95]), np.quantile(drawn, [0.05, 0.5, 0.95]), atol=0.01
    )


def test_columns_are_paired():
    column = np.random.default_rng(0).random((50, 1))
    got = resampling.resampled_means(np.concatenate([column, 1 - column], axis=1))
    np.testing.assert_allclose(got.sum(axis=1), 1)
