"""Tests duplicate groups, stratified group splits, and the cleaning of the training split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data import splits
from fer_jax.data.faces import Faces, one_hot

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def test_duplicate_groups_are_numpy_s_unique_rows(faces):
    originals = faces(40, shape=(6, 5, 1))
    images = originals[np.random.default_rng(1).integers(0, 40, 3000)]
    groups = splits.duplicate_groups(images)
    _, first, inverse = np.unique(images.reshape(3000, -1), axis=0, return_index=True, return_inverse=True)
    order_of_appearance = np.argsort(np.argsort(first))
    assert groups.dtype == np.int32
    np.testing.assert_array_equal(groups, order_of_appearance[inverse.ravel()])


def test_digest_depends_on_the_shape():
    image = np.arange(12, dtype=np.uint8)
    assert splits.pixel_digest(image.reshape(3, 4)) != splits.pixel_digest(image.reshape(4, 3))


def test_blank_mask():
    images = np.zeros((4, 3, 3, 3), np.uint8)
    images[1] = [10, 20, 30]  # one color
    images[2, 1, 1, 2] = 1
    images[3, :, :, 0] = np.arange(3)
    np.testing.assert_array_equal(splits.blank_mask(images), [True, True, False, False])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    images=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 60)), min_size=1, max_size=300),
    shares=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_split_cuts_no_group_and_keeps_class_shares(images, shares, seed):
    labels, groups = np.array(images).T
    fractions = {f"part {i}": share / sum(shares) for i, share in enumerate(shares)}
    parts = splits.stratified_group_split(labels, groups, fractions, seed)
    assert list(parts) == list(fractions)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(labels)))
    sets = [set(groups[members]) for members in parts.values()]
    assert sum(map(len, sets)) == len(set(groups))
    # A group counts as its most frequent class, and changes a split's share of it by at most its size.
    own = np.array([np.bincount(labels[groups == group]).argmax() for group in groups])
    for label in set(own):
        largest = max(np.bincount(groups[own == label]))
        for name, members in parts.items():
            assert (
                abs((own[members] == label).sum() - fractions[name] * (own == label).sum()) <= largest + 1e-6
            )
    again = splits.stratified_group_split(labels, groups, fractions, seed)
    assert all((members == again[name]).all() for name, members in parts.items())


def test_a_split_of_single_images_is_exact_and_depends_on_the_seed():
    labels = np.repeat(np.arange(7), 100)
    parts, other = (splits.stratified_group_split(labels, np.arange(700), FRACTIONS, seed) for seed in (3, 4))
    for name, indices in parts.items():
        np.testing.assert_array_equal(np.bincount(labels[indices]), round(100 * FRACTIONS[name]))
    assert len(np.setdiff1d(parts["test"], other["test"])) > 70


@pytest.mark.parametrize("fractions", [{"train": 0.7, "test": 0.2}, {"train": 1.0, "test": 0.0}])
def test_fractions_must_make_sense(fractions):
    with pytest.raises(ValueError, match=r"must be above 0 and sum to 1, got \{'train'"):
        splits.stratified_group_split(np.zeros(3, int), np.arange(3), fractions, seed=0)


def make_faces(images, labels):
    labels = np.array(labels, np.int32)
    return Faces(images, labels, one_hot(labels), [f"id{i}" for i in range(len(labels))])


def test_faces_have_one_length(faces):
    with pytest.raises(ValueError, match=r"must have the same length, got \[2, 3, 3, 3\]"):
        make_faces(faces(2, shape=(4, 4, 1)), [1, 2, 3])


def test_clean_train_by_hand(faces):
    a, b, c = faces(3, shape=(4, 4, 1))
    blank = np.zeros_like(a)
    train = make_faces(np.stack([a, blank, b, a, blank, a, b, c]), [2, 0, 5, 1, 3, 1, 4, 6])
    clean, counts = splits.clean_train(train, drop_blank=True, merge_duplicates=True)
    assert counts == {"blank": 2, "twin": 3}
    np.testing.assert_array_equal(clean.images, [a, b, c])
    # a has the labels 2, 1, 1; b has 5 and 4, a tie that goes to the first copy
    np.testing.assert_array_equal(clean.labels, [1, 5, 6])
    expected = np.zeros((3, 7))
    expected[0, [2, 1]] = 1 / 3, 2 / 3
    expected[1, [5, 4]] = 0.5
    expected[2, 6] = 1
    np.testing.assert_allclose(clean.targets, expected, atol=1e-7)
    assert clean.ids == ["id0", "id2", "id7"]
    assert (clean.labels.dtype, clean.targets.dtype) == (np.int32, np.float32)
    # Each step separately.
    same, counts = splits.clean_train(train, drop_blank=False, merge_duplicates=False)
    assert same is train and counts == {"blank": 0, "twin": 0}
    no_blanks, counts = splits.clean_train(train, drop_blank=True, merge_duplicates=False)
    assert no_blanks.ids == ["id0", "id2", "id3", "id5", "id6", "id7"] and counts == {"blank": 2, "twin": 0}
    merged, counts = splits.clean_train(train, drop_blank=False, merge_duplicates=True)
    assert merged.ids == ["id0", "id1", "id2", "id7"] and counts == {"blank": 0, "twin": 4}
    np.testing.assert_array_equal(merged.labels, [1, 0, 5, 6])


def test_ties_do_not_depend_on_rounding(faces):
    """Three copies have soft targets whose sums tie only in exact arithmetic."""
    train = make_faces(np.repeat(faces(1, shape=(4, 4, 1)), 3, axis=0), [4, 2, 2])
    soft = np.zeros((3, 7), np.float32)
    soft[:, 4], soft[:, 2] = [0.25, 0.35, 0.45], [0.45, 0.35, 0.25]
    soft[:, 0] = 0.3
    train = Faces(train.images, train.labels, soft, train.ids)
    clean, _ = splits.clean_train(train, drop_blank=False, merge_duplicates=True)
    assert clean.labels.tolist() == [4]
