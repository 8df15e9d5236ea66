"""Tests prediction files: round trips, files of other programs, and errors that name file and row."""

import csv
import gzip
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax import batch_inference
from fer_jax.data.csv_file import DELIMITERS
from fer_jax.data.emotions import EMOTIONS, class_names
from fer_jax.evaluation import leakage, predictions_file

HEADER = "id,label,prediction,angry,disgust,fear,happy,sad,surprise,neutral"
ROW = "a,0,0,1,0,0,0,0,0,0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predictions")


@st.composite
def tables(draw):
    ids = draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, unique=True))
    names = draw(st.sampled_from([list(class_names(7)), list(class_names(8)), ["sad", "tired"]]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def some(high, dtype):
        return draw(st.sampled_from([None, rng.integers(0, high, len(ids)).astype(dtype)]))

    probs = rng.dirichlet(np.ones(len(names)), len(ids))
    labels, groups = some(len(names), np.int64), some(2**40, np.int64)
    return predictions_file.Predictions(ids, probs, labels, names, groups, some(3, np.int8))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(tables(), st.sampled_from(["p.csv", "p.csv.gz"]), st.sampled_from([None, 7]))
def test_what_was_written_is_read(folder, table, name, digits):
    path = folder / name
    predictions_file.write(path, table, digits=digits)
    content = path.read_bytes()
    predictions_file.write(path, table, digits=digits)
    assert path.read_bytes() == content
    assert predictions_file.columns(path) == ["id", "label", "prediction", *table.names, "group", "copy"]
    found = predictions_file.read(path)
    assert (found.ids, found.names) == (table.ids, table.names)
    np.testing.assert_allclose(found.probs, table.probs, rtol=0 if digits is None else 6e-7)
    for attribute in ("labels", "groups", "copies"):
        expected, value = getattr(table, attribute), getattr(found, attribute)
        assert (value is None) == (expected is None)
        if expected is not None:
            assert value.dtype == expected.dtype and (value == expected).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    tables(),
    st.sampled_from(["o.csv", "o.csv.gz"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    st.sampled_from(DELIMITERS),
    st.sampled_from(["\n", "\r", "\r\n"]),
)
def test_any_form_of_csv_is_read_the_same(folder, table, name, encoding, delimiter, end):
    predictions_file.write(folder / "p.csv", table)
    text = io.StringIO(newline="")
    with open(folder / "p.csv", newline="") as file:
        # Python 3.11 does not quote a carriage return.
        form = {"delimiter": delimiter, "lineterminator": end, "quoting": csv.QUOTE_ALL}
        csv.writer(text, **form).writerows(csv.reader(file))
    content = text.getvalue().encode(encoding)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    expected, found = (predictions_file.read(folder / which) for which in ("p.csv", name))
    assert (found.ids, found.names) == (expected.ids, expected.names)
    np.testing.assert_array_equal(found.probs, expected.probs)
    for attribute in ("labels", "groups", "copies"):
        np.testing.assert_array_equal(getattr(found, attribute), getattr(expected, attribute))


def test_a_file_has_a_row_for_each_image(tmp_path):
    table = predictions_file.Predictions(["x"], np.array([[0.25, 0.75]]), np.array([0]), ["sad", "happy"])
    table.copies = np.array([leakage.KINDS.index("near")])
    predictions_file.write(tmp_path / "p.csv", table)
    expected = "id,label,prediction,sad,happy,group,copy\nx,0,1,0.25,0.75,,near\n"
    assert (tmp_path / "p.csv").read_text() == expected


def test_another_programs_file(tmp_path):
    """The file has another order of columns, labels by name, and a byte order mark."""
    text = "sad,id,happy,label\n0.25,x,0.75,happy\n1,y,0,0\n"
    (tmp_path / "p.csv").write_text(text, encoding="utf-8-sig")
    read = predictions_file.read(tmp_path / "p.csv")
    assert read.names == ["sad", "happy"] and read.labels.tolist() == [1, 0]
    read = predictions_file.read(tmp_path / "p.csv", ("happy", "sad"))
    np.testing.assert_array_equal(read.probs, [[0.75, 0.25], [0, 1]])
    assert read.labels.tolist() == [0, 0]  # the name, and the number in the requested order


def test_classes_go_by_their_usual_names_and_rounded_rows_are_renormalized(tmp_path):
    header = "ID,Anger,disgusted,FEAR,Happiness,Sadness,suprise,Neutral,label"
    text = f"{header}\r\na,0.33,0.33,0.33,0,0,0,0,happy\r\nb,0.5,0.25,0.25,0,0,0,0,joy\r\n"
    (tmp_path / "p.csv").write_text(text.replace("joy", "3"), newline="")
    found = predictions_file.read(tmp_path / "p.csv", EMOTIONS)
    assert found.ids == ["a", "b"] and found.names == list(EMOTIONS) and found.labels.tolist() == [3, 3]
    np.testing.assert_allclose(found.probs[:, :3], [[1 / 3] * 3, [0.5, 0.25, 0.25]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: expected a header"),
        (f"{HEADER}\n", "has no rows below the header"),
        ("id,label\n", "lacks the columns angry, disgust, .*, neutral; expected id and one column"),
        ("id,anger,Angry\na,0.5,0.5\n", "has duplicate columns angry: id, anger, Angry"),
        (f"{HEADER}\n{ROW}\nb,0,0,1,0,x,0,0,0,0\n", ", row 3: expected a probab.*'x'"),
        (
            f"{HEADER}\na,0,0,1,0\n",
            ", row 2: expected id and a probability for each of angry, .*ends before fear",
        ),
        (f"{HEADER[3:]},id\n{ROW[2:]}\n", ", row 2: expected id and .* it ends before id"),
        (f"{HEADER}\na,7{ROW[3:]}\n", ", row 2: the label is '7', expected a number from 0 to 6"),
        (f"{HEADER}\na,joy{ROW[3:]}\n", ", row 2: the label is 'joy'"),
        (f"{HEADER}\n{ROW}{ROW}\n{ROW}\n", ", row 2"),
        (f"{HEADER}\n{ROW}\n{ROW}\n", ", row 3: the id 'a' is already in row 2"),
        (f"{HEADER},copy\n{ROW},twin\n", ", row 2: copy is 'twin', expected one of none, near, identical"),
        (f"{HEADER},group\n{ROW},x\n", ", row 2: group is 'x', expected a number"),
        (f"{HEADER},group\n{ROW},{'9' * 5000}\n", r", row 2: group is '9{40}', expected .* below 10\*\*18"),
        (f"{HEADER}\na,{'9' * 5000}{ROW[3:]}\n", ", row 2: the label is '9{40}', expected a number"),
        (f'{HEADER}\na,"{"9" * 2**25}', ", row 2: not CSV .field larger than field limit"),
        (f'{HEADER}\n{ROW}\n"b,0,0,1,0,0,0,0,0,0\n', ", row 3: not CSV .*is there an unclosed quote"),
        (
            f"{','.join(map(str, range(10_000)))}\n",
            "has over 1,000 columns; expected id and one for each class",
        ),
    ],
)
def test_refuses(text, message, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=f"p.csv{'' if message[0] == ',' else ' '}{message}"):
        predictions_file.read(tmp_path / "p.csv", EMOTIONS)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.csv"))):
        predictions_file.read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("-1.0,2.5,0.5", "a value is negative; apply the softmax to logits"),
        ("20,30,50", "they sum to 100; divide percentages by 100"),
        ("0.2,0.2,0.2", "they sum to 0.6, expected 1 to within 0.05"),
        ("0.2,nan,0.2", "not all values are numbers"),
    ],
)
def test_says_why_a_row_is_not_a_distribution(row, reason, tmp_path):
    (tmp_path / "p.csv").write_text(f"id,angry,fear,sad\na,0.2,0.3,0.5\nb,{row}\n")
    with pytest.raises(ValueError, match=f"p.csv, row 3, b: .* is not a probability distribution: {reason}"):
        predictions_file.read(tmp_path / "p.csv")


COMPRESSED = gzip.compress(f"{HEADER}\n{ROW}\n".encode(), mtime=0)  # the same each time it is collected


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv.gz", b"id,angry\n", "compressed text"),
        ("a.csv.gz", b"\x1f\x8b\x08\x00cut", "compressed text"),
        ("a.csv.gz", COMPRESSED[:-12], "compressed text"),
        ("a.csv.gz", COMPRESSED[:-8] + b"12345678", "compressed text"),
        ("a.csv", f"{HEADER}\n{ROW}\n".replace("a,", "\xe4,").encode("latin-1"), "text in UTF-8 or UTF-16"),
    ],
)
def test_a_file_that_is_damaged_or_no_text(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read as {kind}"):
        predictions_file.read(tmp_path / name)


def test_classes_that_are_ruled_out():
    probs = np.array([[0.1, 0.3, 0.6], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(batch_inference.restrict(probs, 2), [[0.25, 0.75], [0.5, 0.5]])
