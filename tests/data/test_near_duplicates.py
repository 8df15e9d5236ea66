"""Tests near duplicates against NumPy's correlation matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_jax.data import near_duplicates

ROUNDING = 1e-5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    shape=st.tuples(st.integers(4, 48), st.integers(4, 48)),
    threshold=st.floats(0.1, 1.0),
    block=st.integers(3, 50),
)
def test_near_pairs_are_those_of_all_correlations(seed, counts, shape, threshold, block):
    """Uses noisy copies and blank images, with and without a second set."""
    rng = np.random.default_rng(seed)
    kinds, total = rng.normal(128, 40, (4, *shape)), sum(counts)
    noise = rng.normal(0, 1, (total, *shape)) * rng.choice([0, 2, 20, 60], (total, 1, 1))
    images = (kinds[rng.integers(0, 4, total)] + noise).clip(0, 255).round().astype(np.uint8)
    images[rng.random(total) < 0.1] = 77
    parts = images[: counts[0]], images[counts[0] :]
    with pytest.MonkeyPatch.context() as patch, np.errstate(invalid="ignore"):  # blank
        patch.setattr(near_duplicates, "_BLOCK", block)
        patch.setattr(near_duplicates, "_CHUNK", 2 * block)
        every = np.nan_to_num(np.atleast_2d(np.corrcoef(images.reshape(total, -1))))
        for others, expected in (
            (None, np.triu(every[: counts[0], : counts[0]], 1)),
            (parts[1], every[: counts[0], counts[0] :]),
        ):
            found = np.zeros(expected.shape)
            for first, second, values in near_duplicates.near_pairs(parts[0], threshold, others=others):
                assert (found[first, second] == 0).all()  # each pair once
                found[first, second] = values
            np.testing.assert_allclose(found[found > 0], expected[found > 0], atol=ROUNDING)
            assert (found[expected >= threshold + ROUNDING] > 0).all()
            assert (expected[found > 0] >= threshold - ROUNDING).all()


def test_identical_images_reach_a_threshold_of_one(faces):
    images = np.concatenate([faces(5), faces(5)])
    (first, second, _), *_ = near_duplicates.near_pairs(images, 1.0, progress=True)
    np.testing.assert_array_equal(second - first, 5)


def test_shrink_gives_grey_at_48_pixels(faces):
    assert near_duplicates.shrink(image := faces(1)[0]) is image
    large = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(near_duplicates.shrink(large), image)
    color = faces(1, shape=(50, 40, 3))[0]
    gray = Image.fromarray(color).convert("L").resize((48, 48), Image.Resampling.BOX)
    np.testing.assert_array_equal(near_duplicates.shrink(color), gray)
