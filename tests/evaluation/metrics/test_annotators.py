"""Tests accuracy by annotator agreement against values computed by hand."""

import numpy as np
import pytest

from fer_jax.evaluation.metrics import annotators

# neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
VOTES = np.array(
    [
        [0, 10, 0, 0, 0, 0, 0, 0, 0, 0],  # all happy
        [0, 0, 0, 8, 0, 0, 2, 0, 0, 0],  # 80 % sad
        [4, 3, 3, 0, 0, 0, 0, 0, 0, 0],  # 40 % neutral: no majority
        [0, 0, 6, 0, 0, 0, 4, 0, 0, 0],  # 60 % surprise
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # without votes
    ]
)
GIVEN = np.array([3, 2, 6, 5, 0])  # happy, fear, neutral, surprise, angry


def probabilities(classes):
    return np.full((5, 7), 0.05) + 0.65 * np.eye(7)[classes]


def test_bands_and_both_labels():
    probs = probabilities([3, 4, 6, 2, 0])  # happy, sad, neutral, fear, angry
    found = annotators.compare(probs, GIVEN, VOTES)
    assert found["num_examples"] == 4
    assert found["against"]["given"]["accuracy"] == 2 / 4  # happy and neutral
    # The third has no majority; the others are happy and sad.
    against = found["against"]["ferplus_majority"]
    assert (against["num_examples"], against["accuracy"]) == (3, pytest.approx(2 / 3))
    low, high = against["interval_95"]
    assert low < 2 / 3 < high
    assert found["labels_agree"] == pytest.approx(2 / 3)  # happy and surprise, not fear for sad
    bands = {(row["agreement_above"], row["agreement_up_to"]): row for row in found["bands"]}
    assert [row["num_examples"] for row in bands.values()] == [1, 1, 1, 1]
    assert bands[0.7, 0.9]["agreement"] == pytest.approx(0.8)
    assert bands[0.7, 0.9]["against"]["given"]["accuracy"] == 0
    assert bands[0.7, 0.9]["against"]["ferplus_majority"]["accuracy"] == 1
    assert bands[0.0, 0.5]["against"]["ferplus_majority"]["num_examples"] == 0
    assert bands[0.9, 1.0]["one_annotator"] == 1


def test_an_annotator_against_the_others():
    votes = np.zeros((3, 10), int)
    votes[0, 1] = 10  # always agrees
    votes[1, [3, 6]] = 8, 2  # eight agree with seven of nine others, two with one of nine
    votes[2, [0, 4]] = 1, 1  # all differ
    np.testing.assert_allclose(annotators.one_annotator(votes), [1, 0.8, 0])


def test_cross_entropy_has_the_entropy_of_the_votes_as_its_floor():
    votes = VOTES[[1, 3]]
    shares = np.zeros((2, 7))
    shares[0, [4, 2]] = 0.8, 0.2  # sad, fear
    shares[1, [5, 2]] = 0.6, 0.4  # surprise, fear
    entropy = -np.mean([0.8 * np.log(0.8) + 0.2 * np.log(0.2), 0.6 * np.log(0.6) + 0.4 * np.log(0.4)])
    perfect = annotators.compare(shares, GIVEN[[1, 3]], votes)["soft"]
    assert perfect["floor"] == pytest.approx(entropy)
    assert perfect["cross_entropy"] == pytest.approx(entropy)
    uniform = annotators.compare(np.full((2, 7), 1 / 7), GIVEN[[1, 3]], votes)["soft"]
    assert uniform["cross_entropy"] == pytest.approx(np.log(7))


def test_eight_classes_know_contempt():
    votes = np.zeros((2, 10), int)
    votes[0, 7], votes[1, 1] = 10, 10
    probs = np.eye(8)[[7, 3]] * 0.92 + 0.01
    found = annotators.compare(probs, np.array([0, 3]), votes)
    against = found["against"]["ferplus_majority"]
    assert against == {"num_examples": 2, "accuracy": 1.0, "interval_95": [1.0, 1.0]}
    seven = annotators.compare(probs[:, :7], np.array([0, 3]), votes)["against"]["ferplus_majority"]
    assert seven["num_examples"] == 1


def test_images_without_votes_are_left_out():
    assert annotators.compare(probabilities([0] * 5), GIVEN, np.zeros((5, 10), int)) is None
