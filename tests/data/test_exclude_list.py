"""Tests lists of IDs to exclude: their formats, and errors that name file and row."""

import csv
import hashlib
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax import tables
from fer_jax.data import exclude_list
from fer_jax.data.csv_file import DELIMITERS
from fer_jax.data.faces import Faces, one_hot


@pytest.fixture
def faces():
    """Returns six faces with IDs a/0 to a/5."""
    labels = np.arange(6, dtype=np.int32)
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    return Faces(images, labels, one_hot(labels), [f"a/{i}" for i in range(6)])


# IDs have no surrounding blanks; in a list with one ID per line, they have no line breaks.
IDS = st.text("aZ/_. ,;\t|\"'\u00e9\u4e16\U0001f600", min_size=1, max_size=6).map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    ids=st.lists(IDS, min_size=1, max_size=5),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    form=st.sampled_from([None, *DELIMITERS]),
)
def test_what_is_written_is_read(tmp_path_factory, ids, encoding, end, form):
    """As a CSV with the IDs in its second column, or one ID per line after an empty line."""
    if form:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=form, lineterminator=end)
        writer.writerows([["label", "id", "quality"], *(["sad", name, 0.5] for name in ids)])
        content = text.getvalue()
    else:
        content = "".join(end + name + end for name in ids)
    path = tmp_path_factory.getbasetemp() / "ids"
    path.write_bytes(content.encode(encoding))
    listed = exclude_list.read(path)
    if form:
        ids = list(map(tables.csv_value, ids))  # a quote that escapes a formula is not part of the ID
    rows = {name: (1 if form else 2) * i + 2 for i, name in reversed(list(enumerate(ids)))}
    assert listed.rows == rows  # the first of two equal IDs
    assert listed.digest == hashlib.sha256(content.encode(encoding)).hexdigest()


def test_listed_faces_are_excluded(faces, tmp_path):
    (tmp_path / "ids").write_text('label,id\n"angry,\nor sad",a/1\nsad,"a/4"\n')
    listed = exclude_list.read(tmp_path / "ids")
    assert listed.rows == {"a/1": 3, "a/4": 4}
    kept = exclude_list.exclude(faces, listed)
    assert kept.ids == ["a/0", "a/2", "a/3", "a/5"]
    np.testing.assert_array_equal(kept.labels, [0, 2, 3, 5])
    np.testing.assert_array_equal(kept.images.ravel(), [0, 2, 3, 5])


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"ids has no id: set config.data.drop_ids=''"),
        ("label,id\n", "ids has no id"),
        ("id,label\na/1,sad\n,sad\n", r"ids, row 3: no id in column 1, the one named id; got \['', 'sad'\]"),
        ("label,id\nsad\n", r"ids, row 2: no id in column 2"),
        ("a/1\n\nb/7\n", r"ids, row 3: no training image has the id 'b/7' \(the first one's is 'a/0'\)"),
        ("name,label\na/1,sad\n", r"ids, row 1: no training image has the id 'name,label'.*a column id"),
        ('label,id\n"sad,\nor not",a/1\nsad,a/9\n', r"ids, row 4: no training image has the id 'a/9'"),
        ('id,label\na/1,sad\n"a/2,sad\na/3,sad\n', "ids, row 4: not CSV .*is there an unclosed quote"),
        (f"id,label\n{'a' * 2**24}b,sad\n", "ids, row 2: not CSV .field larger than field limit"),
        ("\n".join(f"a/{i}" for i in range(6)), "ids lists all 6 training images: none remains"),
    ],
)
def test_refuses(faces, content, message, tmp_path):
    (tmp_path / "ids").write_text(content)
    with pytest.raises(ValueError, match=message):
        exclude_list.exclude(faces, exclude_list.read(tmp_path / "ids"))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no file {tmp_path / 'ids'}: config.data")):
        exclude_list.read(tmp_path / "ids")
    (tmp_path / "ids").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match="ids cannot be read as text in UTF-8 or UTF-16"):
        exclude_list.read(tmp_path / "ids")
