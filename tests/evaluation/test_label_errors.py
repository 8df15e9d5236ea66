"""Tests suspected labels against cleanlab's mask and planted errors."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from helpers import rows_of

from fer_jax.data import exclude_list
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import label_errors

CONFUSED = ((3, 1), (0, 2), (6, 4))  # happy labeled disgust, and so on


@pytest.fixture(scope="module")
def planted():
    """Returns probabilities [700, 7], labels with 20 errors of each kind in CONFUSED, IDs, and indices."""
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(7), 100)
    logits = rng.normal(0, 1, (700, 7))
    logits[np.arange(700), true] += 5
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = true.copy()
    for right, wrong in CONFUSED:
        labels[100 * right : 100 * right + 20] = wrong
    return probs, labels, [f"train/{i}" for i in range(700)], np.flatnonzero(labels != true)


def test_suspects_are_cleanlabs_issues_by_the_probability_of_the_label(planted):
    probs, labels, ids, wrong = planted
    suspects = label_errors.find_suspects(probs, labels, ids)
    found = [s.index for s in suspects]
    assert sorted(found) == np.flatnonzero(find_label_issues(labels, probs, n_jobs=1)).tolist()
    assert found == sorted(found, key=lambda i: probs[i, labels[i]])
    for s in suspects:
        assert (s.id, s.label) == (ids[s.index], labels[s.index])
        assert s.suggested == probs[s.index].argmax() != s.label
        assert s.quality == probs[s.index, s.label]
    # Confident learning counts only images on which the model is at least as confident as on average.
    assert set(found) <= set(wrong.tolist()) and len(found) > len(wrong) / 2


@pytest.mark.filterwarnings("error:May not flag all label issues in class")
def test_a_class_without_images(planted):
    probs, labels, ids, _ = planted
    kept = np.flatnonzero(labels != 5)
    suspects = label_errors.find_suspects(probs[kept], labels[kept], [ids[i] for i in kept])
    assert suspects and all(s.id == ids[kept[s.index]] for s in suspects)


def test_nothing_to_suspect(tmp_path):
    labels = np.repeat(np.arange(7), 5)
    probs = np.full((35, 7), 0.02) + 0.86 * np.eye(7)[labels]
    suspects = label_errors.find_suspects(probs, labels, [str(i) for i in range(35)])
    assert suspects == []
    label_errors.write_suspects(tmp_path / "suspects.csv", suspects, EMOTIONS)
    assert (tmp_path / "suspects.csv").read_text() == "id,label,suggested,quality\n"


def test_refuses(planted):
    probs, labels, ids, _ = planted
    with pytest.raises(ValueError, match="expected an id for each of 700 images, got 699"):
        label_errors.find_suspects(probs, labels, ids[1:])
    with pytest.raises(ValueError, match="row 0 is not a probability distribution"):
        label_errors.find_suspects(2 * probs, labels, ids)


def test_the_file_is_a_list_to_leave_out_and_the_sheet_is_drawn(planted, tmp_path):
    probs, labels, ids, _ = planted
    suspects = label_errors.find_suspects(probs, labels, ids)
    label_errors.write_suspects(tmp_path / "suspects.csv", suspects, EMOTIONS)
    assert list(exclude_list.read(tmp_path / "suspects.csv").rows) == [s.id for s in suspects]
    rows = rows_of(tmp_path / "suspects.csv")
    pairs = {(row["suggested"], row["label"]) for row in rows[:30]}
    assert pairs == {("happy", "disgust"), ("angry", "fear"), ("neutral", "sad")}
    assert float(rows[0]["quality"]) == pytest.approx(suspects[0].quality, rel=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (700, 8, 8, 1), dtype=np.uint8)
    figure = label_errors.plot_suspects(images, suspects[:10], EMOTIONS, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size
    (axis,) = figure.axes
    np.testing.assert_array_equal(axis.images[3].get_array(), images[suspects[3].index, ..., 0])
    first = axis.texts[0].get_text()
    assert f"{100 * suspects[0].quality:.1f} %" in first and first.endswith("or happy?")
