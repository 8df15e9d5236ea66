"""Predictions as CSV: there and back, as reports write them, and errors that name file and row."""

import re

import numpy as np
import pytest

from fer_jax.evaluation import report
from fer_jax.evaluation.predictions import read_predictions, write_predictions

HEADER = "id,label,prediction,angry,disgust,fear,happy,sad,surprise,neutral"


@pytest.fixture
def predictions():
    """Probabilities [30, 7], labels and ids, one of which needs quotes."""
    rng = np.random.default_rng(2)
    return rng.dirichlet(np.ones(7), 30), rng.integers(0, 7, 30), ['a,"b"', *(f"i/{n}" for n in range(29))]


def test_there_and_back(predictions, tmp_path):
    probs, labels, ids = predictions
    write_predictions(tmp_path / "p.csv", probs, labels, ids)
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == HEADER
    read, read_labels, read_ids = read_predictions(tmp_path / "p.csv")
    np.testing.assert_array_equal(read, probs)
    np.testing.assert_array_equal(read_labels, labels)
    assert read_ids == ids


def test_a_reports_predictions_are_read(predictions, tmp_path):
    probs, labels, ids = predictions
    report.write_report(
        tmp_path, probs, labels, ids, facts={"split": "validation", "tta": "none", "checkpoint": "w"}
    )
    read, read_labels, read_ids = read_predictions(tmp_path / "predictions.csv")
    np.testing.assert_array_equal(read, probs)
    np.testing.assert_array_equal(read_labels, labels)
    assert read_ids == ids


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,label\n", "p.csv lacks the columns angry, disgust, .*, neutral; expected predictions.csv"),
        (f"{HEADER}\na,0,0,1,0,0,0,0,0,0\nb,0,0,1,0,x,0,0,0,0\n", r"p.csv, row 3: expected a label.*'x'"),
        (f"{HEADER}\na,0,0,1,0\n", "p.csv, row 2: expected a label from 0 to 6 and seven probabilities"),
        (f"{HEADER}\na,7,0,1,0,0,0,0,0,0\n", "p.csv: labels run from 7 to 7, expected 0 to 6"),
        (f"{HEADER}\na,0,0,1,1,0,0,0,0,0\n", "p.csv: row 0 is no probability distribution"),
        (f"{HEADER}\n", "p.csv: no images to evaluate"),
    ],
)
def test_refuses(text, message, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.csv"))):
        read_predictions(tmp_path / "none.csv")
