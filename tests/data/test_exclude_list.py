"""Lists of ids to leave out: their forms, and errors that name file and row."""

import hashlib
import re

import numpy as np
import pytest

from fer_jax.data import exclude_list
from fer_jax.data.faces import Faces, one_hot


@pytest.fixture
def faces():
    """Six faces with ids a/0 to a/5."""
    labels = np.arange(6, dtype=np.int32)
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    return Faces(images, labels, one_hot(labels), [f"a/{i}" for i in range(6)])


@pytest.mark.parametrize(
    "content",
    [
        "a/1\n\n  a/4\na/1\n",
        "id\na/1\na/4",
        "\ufefflabel, id ,quality\r\nhappy,a/1,0.1\r\n\r\nsad,a/4,0.2\r\n",
        'label,id\n"angry,\nor sad",a/1\nsad,"a/4"\n',
    ],
)
def test_forms(faces, content, tmp_path):
    path = tmp_path / "ids"
    path.write_bytes(content.encode())
    listed = exclude_list.read(path)
    assert list(listed.rows) == ["a/1", "a/4"]
    assert listed.digest == hashlib.sha256(content.encode()).hexdigest()
    kept = exclude_list.exclude(faces, listed)
    assert kept.ids == ["a/0", "a/2", "a/3", "a/5"]
    np.testing.assert_array_equal(kept.labels, [0, 2, 3, 5])
    np.testing.assert_array_equal(kept.images.ravel(), [0, 2, 3, 5])


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"ids names no id: set config.data.drop_ids=''"),
        ("label,id\n", "ids names no id"),
        ("id,label\na/1,sad\n,sad\n", r"ids, row 3: no id in column 1, the one named id; got \['', 'sad'\]"),
        ("label,id\nsad\n", r"ids, row 2: no id in column 2"),
        ("a/1\n\nb/7\n", r"ids, row 3: no training image has the id 'b/7' \(the first one's is 'a/0'\)"),
        ("name,label\na/1,sad\n", r"ids, row 1: no training image has the id 'name,label'.*a column id"),
        ('label,id\n"sad,\nor not",a/1\nsad,a/9\n', r"ids, row 4: no training image has the id 'a/9'"),
        ("\n".join(f"a/{i}" for i in range(6)), "ids lists all 6 training images: none is left"),
    ],
)
def test_refuses(faces, content, message, tmp_path):
    path = tmp_path / "ids"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        exclude_list.exclude(faces, exclude_list.read(path))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no file {tmp_path / 'ids'}: config.data")):
        exclude_list.read(tmp_path / "ids")
    (tmp_path / "ids").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match="ids is no UTF-8 text"):
        exclude_list.read(tmp_path / "ids")
