"""Predictions as CSV: there and back, as reports and others write them, and errors that name file and row."""

import re

import numpy as np
import pytest

from fer_jax import batch_inference
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file

HEADER = "id,label,prediction,angry,disgust,fear,happy,sad,surprise,neutral"


@pytest.fixture
def table():
    """30 predictions, an id of which needs quotes."""
    rng = np.random.default_rng(2)
    ids = ['a,"b"', *(f"i/{n}" for n in range(29))]
    probs, labels = rng.dirichlet(np.ones(7), 30), rng.integers(0, 7, 30)
    groups, copies = np.arange(30) // 2, rng.integers(0, 3, 30).astype(np.int8)
    return predictions_file.Predictions(ids, probs, labels, list(EMOTIONS), groups, copies)


def test_there_and_back(table, tmp_path):
    predictions_file.write(tmp_path / "p.csv", table)
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == HEADER + ",group,copy"
    read = predictions_file.read(tmp_path / "p.csv")
    for name in ("probs", "labels", "groups", "copies"):
        np.testing.assert_array_equal(getattr(read, name), getattr(table, name))
    assert (read.ids, read.names) == (table.ids, table.names)


def test_what_is_not_known_stays_so(table, tmp_path):
    table.labels = table.groups = table.copies = None
    predictions_file.write(tmp_path / "p.csv", table)
    read = predictions_file.read(tmp_path / "p.csv")
    assert read.labels is None and read.groups is None and read.copies is None


def test_another_programs_file(tmp_path):
    """Columns in another order, labels by name, a byte order mark."""
    text = "sad,id,happy,label\n0.25,x,0.75,happy\n1,y,0,0\n"
    (tmp_path / "p.csv").write_text(text, encoding="utf-8-sig")
    read = predictions_file.read(tmp_path / "p.csv")
    assert read.names == ["sad", "happy"] and read.labels.tolist() == [1, 0]
    read = predictions_file.read(tmp_path / "p.csv", ("happy", "sad"))
    np.testing.assert_array_equal(read.probs, [[0.75, 0.25], [0, 1]])
    assert read.labels.tolist() == [0, 0]  # the name, and the number in the order asked for


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,label\n", "p.csv lacks the columns angry, disgust, .*, neutral; expected id and one column"),
        (f"{HEADER}\na,0,0,1,0,0,0,0,0,0\nb,0,0,1,0,x,0,0,0,0\n", r"p.csv, row 3: expected a probab.*'x'"),
        (f"{HEADER}\na,0,0,1,0\n", "p.csv, row 2: expected a probability for each of angry"),
        (f"{HEADER}\na,7,0,1,0,0,0,0,0,0\n", "p.csv, row 2: the label is '7', expected a number from 0 to 6"),
        (f"{HEADER}\na,joy,0,1,0,0,0,0,0,0\n", "p.csv, row 2: the label is 'joy'"),
        (f"{HEADER}\n{2 * 'a,0,0,1,0,0,0,0,0,0' + chr(10)}", "row 2"),
        (f"{HEADER}\na,0,0,1,0,0,0,0,0,0\na,0,0,1,0,0,0,0,0,0\n", "row 3: the id 'a' was in row 2"),
        (f"{HEADER}\na,0,0,1,1,0,0,0,0,0\n", "p.csv, row 2, a: .* is no probability distribution"),
        (f"{HEADER},copy\na,0,0,1,0,0,0,0,0,0,twin\n", "copy is 'twin', expected one of none, near, ident"),
        (f"{HEADER},group\na,0,0,1,0,0,0,0,0,0,x\n", "group is 'x', expected a number"),
        (f"{HEADER}\n", "p.csv has no rows below its header"),
    ],
)
def test_refuses(text, message, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        predictions_file.read(tmp_path / "p.csv", EMOTIONS)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.csv"))):
        predictions_file.read(tmp_path / "none.csv")


def test_compressed_and_rounded(tmp_path, table):
    for name in ("a.csv.gz", "b.csv.gz"):
        predictions_file.write(tmp_path / name, table, digits=7)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    found = predictions_file.read(tmp_path / "a.csv.gz")
    assert found.ids == table.ids
    np.testing.assert_allclose(found.probs, table.probs, rtol=6e-7)
    assert predictions_file.columns(tmp_path / "a.csv.gz")[:3] == ["id", "label", "prediction"]


@pytest.mark.parametrize("content", [b"id,angry\n", b"\x1f\x8b\x08\x00cut"])
def test_a_compressed_file_that_is_damaged(tmp_path, content):
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.csv.gz cannot be read as compressed text"):
        predictions_file.read(tmp_path / "a.csv.gz")


def test_classes_that_are_ruled_out():
    probs = np.array([[0.1, 0.3, 0.6], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(batch_inference.restrict(probs, 2), [[0.25, 0.75], [0.5, 0.5]])


def write_as(path, header, rows, end="\n"):
    path.write_text(end.join([header, *(",".join(map(str, row)) for row in rows)]) + end, newline="")
    return path


def test_classes_go_by_their_usual_names(tmp_path):
    header = "ID,Anger,disgusted,FEAR,Happiness,Sadness,suprise,Neutral,label"
    path = write_as(tmp_path / "p.csv", header, [("a", 0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1, "happy")], "\r\n")
    found = predictions_file.read(path, EMOTIONS)
    assert found.ids == ["a"] and found.names == list(EMOTIONS) and found.labels.tolist() == [3]
    np.testing.assert_allclose(found.probs, [[0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1]])
    path = write_as(tmp_path / "two.csv", "id,anger,Angry", [("a", 0.5, 0.5)])
    with pytest.raises(ValueError, match="two.csv has two columns angry: id, anger, Angry"):
        predictions_file.read(path)


def test_rounded_probabilities_are_renormalised(tmp_path):
    rows = [("a", 0.33, 0.33, 0.33), ("b", 0.5, 0.25, 0.25)]
    found = predictions_file.read(write_as(tmp_path / "p.csv", "id,angry,fear,sad", rows))
    np.testing.assert_allclose(found.probs, [[1 / 3] * 3, [0.5, 0.25, 0.25]])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((-1.0, 2.5, 0.5), "one is negative; if they are logits, take their softmax"),
        ((20, 30, 50), "they sum to 100; if they are percentages, divide them"),
        ((0.2, 0.2, 0.2), "they sum to 0.6, expected 1 to within 0.05"),
        ((0.2, "nan", 0.2), "not all are numbers"),
    ],
)
def test_what_is_no_distribution_is_told_why(row, reason, tmp_path):
    rows = [("a", 0.2, 0.3, 0.5), ("b", *row)]
    path = write_as(tmp_path / "p.csv", "id,angry,fear,sad", rows)
    with pytest.raises(ValueError, match=f"p.csv, row 3, b: .* is no probability distribution: {reason}"):
        predictions_file.read(path)


def test_files_without_anything(tmp_path):
    (tmp_path / "p.csv").touch()
    with pytest.raises(ValueError, match="p.csv is empty: expected a header"):
        predictions_file.read(tmp_path / "p.csv")
    with pytest.raises(ValueError, match="p.csv has no rows below its header"):
        predictions_file.read(write_as(tmp_path / "p.csv", "id,angry,fear,sad", []))
