"""Tests the FER+ rules by hand, against Microsoft's procedure, and against official counts."""

import numpy as np
import pytest
from helpers import rows_of

from fer_jax.data import ferplus
from fer_jax.data.emotions import EMOTIONS, canonical, class_names
from fer_jax.data.faces import Faces, one_hot

# Training, PublicTest.
OFFICIAL = {
    "ferplus_majority": (25_060, 3_199),
    "ferplus_argmax8": (28_559, 3_579),
    "ferplus_argmax10": (28_389, 3_553),
}


def votes_of(**counts):
    return np.array([[counts.get(name, 0) for name in ferplus.COLUMNS]])


def label_of(votes, rule, num_classes=8):
    """Returns the name of the label, or None."""
    label = ferplus.labels(votes, rule, num_classes)[0][0]
    return None if label == ferplus.LEFT_OUT else class_names(num_classes)[label]


@pytest.mark.parametrize(
    "votes, majority, argmax8, argmax10, soft",
    [
        (votes_of(happiness=9, surprise=1), "happy", "happy", "happy", {"happy": 1}),
        # 5 of 10 is not a majority, but 5 of the 9 votes without the single one is
        (votes_of(anger=5, sadness=5), None, "sad", "sad", {"sad": 0.5, "angry": 0.5}),
        (votes_of(anger=5, sadness=4, fear=1), "angry", "angry", "angry", {"angry": 5 / 9, "sad": 4 / 9}),
        (votes_of(fear=4, disgust=3, NF=3), None, "fear", "fear", {"fear": 4 / 7, "disgust": 3 / 7}),
        (votes_of(unknown=6, neutral=4), None, "neutral", None, None),
        (votes_of(unknown=5, contempt=5), None, "contempt", "contempt", None),
        (votes_of(NF=10), None, None, None, None),
        (votes_of(), None, None, None, None),
        # only single votes, which are all removed
        (votes_of(neutral=1, fear=1, NF=1), None, "neutral", "neutral", None),
        (votes_of(contempt=7, neutral=3), *["contempt"] * 3, {"contempt": 0.7, "neutral": 0.3}),
    ],
)
def test_rules_by_hand(votes, majority, argmax8, argmax10, soft):
    assert label_of(votes, "ferplus_majority") == majority
    assert label_of(votes, "ferplus_argmax8") == argmax8
    assert label_of(votes, "ferplus_argmax10") == argmax10
    target = ferplus.labels(votes, "ferplus_votes", 8)[1][0]
    expected = [(soft or {}).get(name, 0) for name in class_names(8)]
    np.testing.assert_allclose(target, expected, atol=1e-7)
    assert label_of(votes, "ferplus_votes") == (max(soft, key=soft.get) if soft else None)


def test_seven_classes_know_no_contempt():
    contempt, some, none = votes_of(contempt=7, neutral=3), votes_of(contempt=4, anger=6), votes_of(fear=10)
    votes = np.concatenate([contempt, some, none])
    labels, targets = ferplus.labels(votes, "ferplus_votes", 7)
    assert labels.tolist() == [ferplus.LEFT_OUT, 0, 2]
    np.testing.assert_array_equal(targets, [[0] * 7, np.eye(7)[0], np.eye(7)[2]])
    assert (labels.dtype, targets.dtype) == (np.int32, np.float32)
    eight = ferplus.labels(votes, "ferplus_votes", 8)[1]
    np.testing.assert_allclose(eight[1, [0, 7]], [0.6, 0.4], atol=1e-7)
    assert label_of(contempt, "ferplus_majority", 7) is None


def test_columns_and_classes_are_of_one_name():
    for column, name in enumerate(ferplus.COLUMNS[:8]):
        label, target = ferplus.labels(np.eye(10, dtype=int)[[column]] * 10, "ferplus_majority", 8)
        expected = 7 if name == "contempt" else EMOTIONS.index(canonical(name))
        assert label.tolist() == [expected] and target[0].tolist() == np.eye(8)[expected].tolist()


def microsofts_majority(row):
    """Returns the column or None, reimplementing the procedure of src/ferplus.py in microsoft/FERPlus."""
    counts = [float(n) if n > 1.000001 else 0.0 for n in row]
    top = max(counts)
    winner = counts.index(top)
    return winner if top > 0.5 * sum(counts) and winner < 8 else None


def test_majority_as_microsoft_has_it():
    rng = np.random.default_rng(1)
    votes = np.stack([rng.multinomial(10, rng.dirichlet(np.full(10, 0.2))) for _ in range(500)])
    labels = ferplus.labels(votes, "ferplus_majority", 8)[0]
    names = [None if i < 0 else class_names(8)[i] for i in labels]
    columns = [microsofts_majority(row.tolist()) for row in votes]
    plain = {name: canonical(name) for name in ferplus.COLUMNS[:7]} | {"contempt": "contempt"}
    assert names == [None if c is None else plain[ferplus.COLUMNS[c]] for c in columns]
    assert 50 < names.count(None) < 450


def test_relabel_takes_what_the_rule_keeps():
    votes = np.concatenate([votes_of(fear=10), votes_of(NF=10), votes_of(sadness=6, contempt=4)])
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    faces = Faces(images, np.zeros(3, np.int32), one_hot(np.zeros(3, int)), ["a", "b", "c"], votes)
    kept = ferplus.relabel(faces, "ferplus_votes", 8)
    assert kept.ids == ["a", "c"] and kept.images.ravel().tolist() == [0, 2]
    assert kept.labels.tolist() == [2, 4]
    np.testing.assert_allclose(kept.targets[1], [0, 0, 0, 0, 0.6, 0, 0, 0.4], atol=1e-7)
    np.testing.assert_array_equal(kept.votes, votes[[0, 2]])


def test_what_there_is_not_is_named():
    with pytest.raises(ValueError, match="unknown FER\\+ rule 'most'; there are: ferplus_majority"):
        ferplus.labels(votes_of(), "most", 8)
    with pytest.raises(ValueError, match="6 classes; expected 7 .* or 8"):
        ferplus.labels(votes_of(), "ferplus_majority", 6)
    without = Faces(np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int32), one_hot(np.zeros(1, int)), ["a"])
    with pytest.raises(ValueError, match="no FER\\+ votes"):
        ferplus.relabel(without, "ferplus_majority", 8)


@pytest.mark.parametrize("rule", OFFICIAL)
def test_official_counts(rule, shared_dir):
    rows = rows_of(shared_dir / "fer2013" / "labels.csv")
    votes = np.array([[int(row[name]) for name in ferplus.COLUMNS] for row in rows])
    usage = np.array([row["Usage"] for row in rows])
    kept = ferplus.labels(votes, rule, 8)[0] != ferplus.LEFT_OUT
    assert tuple(int(kept[usage == name].sum()) for name in ("Training", "PublicTest")) == OFFICIAL[rule]
