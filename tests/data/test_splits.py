"""Duplicate groups, group-safe splits and the cleaned training split."""

import numpy as np
import pytest

from fer_jax.data import splits
from fer_jax.data.faces import Faces, one_hot


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
    images[1] = [10, 20, 30]  # one colour
    images[2, 1, 1, 2] = 1
    images[3, :, :, 0] = np.arange(3)
    np.testing.assert_array_equal(splits.blank_mask(images), [True, True, False, False])


FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


@pytest.fixture
def labels_and_groups():
    """5,000 images of unequal classes, every third with one to three twins, some labelled otherwise."""
    rng = np.random.default_rng(5)
    labels = rng.choice(7, 5000, p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17])
    groups = np.arange(5000)
    for start in range(0, 4500, 3):
        members = rng.choice(5000, rng.integers(2, 5), replace=False)
        if rng.random() < 0.3:
            groups[members] = start
            if rng.random() < 0.95:
                labels[members] = labels[members[0]]
    return labels, groups


def test_split_covers_everything_and_cuts_no_group(labels_and_groups):
    labels, groups = labels_and_groups
    parts = splits.stratified_group_split(labels, groups, FRACTIONS, seed=0)
    assert list(parts) == list(FRACTIONS)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(5000))
    in_part = {name: set(groups[indices]) for name, indices in parts.items()}
    assert not in_part["train"] & in_part["validation"]
    assert not in_part["train"] & in_part["test"]
    assert not in_part["validation"] & in_part["test"]


def test_split_keeps_class_shares(labels_and_groups):
    labels, groups = labels_and_groups
    parts = splits.stratified_group_split(labels, groups, FRACTIONS, seed=0)
    for name, indices in parts.items():
        expected = FRACTIONS[name] * np.bincount(labels)
        # within a group's size: conflicting groups count for their majority's class
        np.testing.assert_allclose(np.bincount(labels[indices], minlength=7), expected, atol=12)


def test_split_of_single_images_is_exact():
    labels = np.repeat(np.arange(7), 100)
    parts = splits.stratified_group_split(labels, np.arange(700), FRACTIONS, seed=3)
    for name, indices in parts.items():
        np.testing.assert_array_equal(np.bincount(labels[indices]), round(100 * FRACTIONS[name]))


def test_split_depends_on_the_seed_alone(labels_and_groups):
    first, again, other = (
        splits.stratified_group_split(*labels_and_groups, FRACTIONS, seed)["test"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert len(np.setdiff1d(first, other)) > 100


@pytest.mark.parametrize("fractions", [{"train": 0.7, "test": 0.2}, {"train": 1.0, "test": 0.0}])
def test_fractions_must_make_sense(fractions):
    with pytest.raises(ValueError, match=r"must be above 0 and sum to 1, got \{'train'"):
        splits.stratified_group_split(np.zeros(3, int), np.arange(3), fractions, seed=0)


def make_faces(images, labels):
    labels = np.array(labels, np.int32)
    return Faces(images, labels, one_hot(labels), [f"id{i}" for i in range(len(labels))])


def test_clean_train_by_hand(faces):
    a, b, c = faces(3, shape=(4, 4, 1))
    blank = np.zeros_like(a)
    images = np.stack([a, blank, b, a, blank, a, b, c])
    train = make_faces(images, [2, 0, 5, 1, 3, 1, 4, 6])
    clean, counts = splits.clean_train(train, drop_blank=True, merge_duplicates=True)
    assert counts == {"blank": 2, "twin": 3}
    np.testing.assert_array_equal(clean.images, [a, b, c])
    # a was called 2, 1, 1; b 5 and 4, a tie that goes to the first copy
    np.testing.assert_array_equal(clean.labels, [1, 5, 6])
    expected = np.zeros((3, 7))
    expected[0, [2, 1]] = 1 / 3, 2 / 3
    expected[1, [5, 4]] = 0.5
    expected[2, 6] = 1
    np.testing.assert_allclose(clean.targets, expected, atol=1e-7)
    assert clean.ids == ["id0", "id2", "id7"]
    assert clean.labels.dtype == np.int32
    assert clean.targets.dtype == np.float32


def test_clean_train_switches(faces):
    a = faces(1, shape=(4, 4, 1))[0]
    train = make_faces(np.stack([a, np.zeros_like(a), a, np.zeros_like(a)]), [1, 2, 1, 3])
    same, counts = splits.clean_train(train, drop_blank=False, merge_duplicates=False)
    assert same is train
    assert counts == {"blank": 0, "twin": 0}
    no_blanks, counts = splits.clean_train(train, drop_blank=True, merge_duplicates=False)
    assert no_blanks.ids == ["id0", "id2"]
    assert counts == {"blank": 2, "twin": 0}
    no_twins, counts = splits.clean_train(train, drop_blank=False, merge_duplicates=True)
    assert no_twins.ids == ["id0", "id1"]
    assert counts == {"blank": 0, "twin": 2}
    np.testing.assert_array_equal(no_twins.labels, [1, 2])


def test_ties_do_not_depend_on_rounding(faces):
    """Six copies with soft targets whose sums tie in exact arithmetic only."""
    images = np.repeat(faces(1, shape=(4, 4, 1)), 3, axis=0)
    train = make_faces(images, [4, 2, 2])
    soft = np.zeros((3, 7), np.float32)
    soft[:, 4], soft[:, 2] = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    soft[:, 0] = 1 - soft.sum(axis=1)
    soft[:, 0] -= 0.3
    soft[:, 4] += 0.15
    soft[:, 2] += 0.15
    train = Faces(train.images, train.labels, soft, train.ids)
    clean, _ = splits.clean_train(train, drop_blank=False, merge_duplicates=True)
    assert clean.labels.tolist() == [4]
