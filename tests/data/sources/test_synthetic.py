"""Tests that synthetic faces are reproducible and varied, and differ between classes only in expression."""

import hashlib
import itertools

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier

from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import face_drawing, synthetic
from fer_jax.data.sources.record import SPLITS


@pytest.fixture(scope="module")
def train():
    return synthetic.generate(200, seed=0, split="train")


@pytest.fixture(scope="module")
def test():
    return synthetic.generate(100, seed=0, split="test")


def test_the_same_faces_on_every_machine(train):
    images, labels = train
    assert images.shape == (1400, 48, 48, 1) and images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.tile(np.arange(7), 200))
    assert hashlib.sha256(images[:70].tobytes()).hexdigest()[:16] == "e542ad16380ce2ef"


def test_a_face_does_not_depend_on_how_many_are_drawn(train):
    uneven, labels = synthetic.generate([0, 1, 0, 5, 0, 0, 2], seed=0, split="train")
    assert labels.tolist() == [1, 3, 6, 3, 6, 3, 3, 3]
    for label in range(7):
        mine = uneven[labels == label]
        np.testing.assert_array_equal(mine, train[0][train[1] == label][: len(mine)])


def test_no_face_twice_across_splits_and_seeds():
    faces = [synthetic.generate(30, seed, split)[0] for seed in (0, 1) for split in SPLITS]
    together = np.concatenate(faces).reshape(6 * 210, -1)
    assert len(np.unique(together, axis=0)) == len(together)


def test_images_use_the_range_and_vary(train):
    images = train[0].astype(np.float32)
    means, spreads = images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))
    assert 90 < means.mean() < 150 and means.std() > 20
    assert spreads.min() > 8 and spreads.mean() > 35
    # No pixel is the same in all faces.
    assert images.std(axis=0).min() > 25


def test_brightness_and_contrast_reveal_nothing(train, test):
    def tones(images):
        flat = images.reshape(len(images), -1)
        return np.concatenate(
            [np.percentile(flat, [1, 5, 25, 50, 75, 95, 99], axis=1).T, flat.std(axis=1)[:, None]], 1
        )

    forest = RandomForestClassifier(100, random_state=0).fit(tones(train[0]), train[1])
    assert forest.score(tones(test[0]), test[1]) < 0.25  # chance is 0.14


def test_a_linear_model_is_not_enough_but_better_than_chance(train, test):
    def prepare(images):
        return images.reshape(len(images), -1) / 127.5 - 1

    model = RidgeClassifier(alpha=3000).fit(prepare(train[0]), train[1])
    assert 0.2 < model.score(prepare(test[0]), test[1]) < 0.6


def test_only_the_expression_depends_on_the_class():
    """The same person with seven expressions: all images differ, but not in hair or background."""
    dice = face_drawing.Dice(np.full((7, face_drawing.NUM_DICE), 0.5, np.float32))
    expression = synthetic._expression(np.arange(7), dice)
    pictures = face_drawing.Painter(dice, 7).paint(expression, np.zeros((7, 48, 48), np.float32)).astype(int)
    for a, b in itertools.combinations(range(7), 2):
        difference = abs(pictures[a] - pictures[b])
        assert difference[10:44, 10:38].max() > 60, (EMOTIONS[a], EMOTIONS[b])
        difference[6:48, 8:40] = 0
        assert difference.max() == 0, (EMOTIONS[a], EMOTIONS[b])


@pytest.mark.parametrize(
    ("per_class", "seed", "split", "message"),
    [
        (10, 0, "valid", r"no split 'valid'; there are: train, validation, test"),
        (-1, 0, "train", r"all 0 or more"),
        (10, -1, "train", r"seed=-1"),
        ([1, 2, 3], 0, "train", r"one or 7 numbers of faces"),
    ],
)
def test_bad_arguments(per_class, seed, split, message):
    with pytest.raises(ValueError, match=message):
        synthetic.generate(per_class, seed, split)
