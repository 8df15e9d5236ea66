"""Tests the search for duplicates against an exhaustive comparison."""

import numpy as np
import pytest

from fer_jax.evaluation import leakage


@pytest.fixture
def faces():
    """Returns distinct smooth images uint8 [40, 48, 48, 1]."""
    coarse = np.random.default_rng(0).normal(size=(40, 6, 6))
    return (128 + 40 * np.kron(coarse, np.ones((8, 8))))[..., None].clip(0, 255).astype(np.uint8)


def test_identical_near_and_unrelated(faces):
    noise = np.random.default_rng(1).normal(size=faces.shape)
    test = faces[:9].copy()
    test[3:6] = (faces[3:6] + 6 * noise[3:6]).clip(0, 255).astype(np.uint8)  # near
    others = np.concatenate([faces[20:], faces[:6]])
    assert leakage.find_duplicates(test, others, progress=False).tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]


def test_color_and_other_sizes(faces):
    color = np.repeat(np.kron(faces[:4], np.ones((1, 2, 2, 1), np.uint8)), 3, axis=-1)
    assert leakage.find_duplicates(color[:2], color[1:], progress=False).tolist() == [0, 2]
    grayscale_too = leakage.find_duplicates(faces[:2], np.repeat(faces[1:4], 3, axis=-1), progress=False)
    assert grayscale_too.tolist() == [0, 1]  # different pixels of the same photograph


def test_pairs_within_a_split(faces):
    images = np.concatenate([faces[:5], faces[1:3]])
    first, second = leakage.find_duplicate_pairs(images)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(1, 5), (2, 6)]
    none, _ = leakage.find_duplicate_pairs(faces[:5])
    assert none.shape == (0,)
