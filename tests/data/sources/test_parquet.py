"""Tests Parquet files in the format of the Hugging Face Hub."""

import json
import sys

import numpy as np
import pytest
from helpers import encode, needed

from fer_jax.data.decoding import PictureError
from fer_jax.data.sources import classes
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SourceError

NAMES = ["sad", "Happiness", "anger"]
SPLITS = {
    "train-00000-of-00002": "train",
    "train-00001-of-00002": "train",
    "validation-00000-of-00001": "validation",
}


@pytest.fixture
def write(tmp_path):
    """Returns write(name, images, labels) -> path; with class names, the labels are a ClassLabel."""
    pyarrow = needed("pyarrow", "huggingface")
    parquet = needed("pyarrow.parquet", "huggingface")

    def write(name, images, labels, *, names=None, columns=("image", "label")):
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"_type": "Value", "dtype": "int64"}}
        if names is not None:
            features[columns[1]] = {"names": names, "_type": "ClassLabel"}
        table = pyarrow.table({columns[0]: images, columns[1]: labels, "other": ["x"] * len(labels)})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path, row_group_size=2)
        return path

    return write


@pytest.mark.parametrize("columns", [("image", "label"), ("Img", "Emotion"), ("x", "y")])
def test_a_folder_of_files(write, faces, tmp_path, columns):
    images = faces(9)
    for i, name in enumerate(SPLITS):
        values = [{"bytes": encode(image), "path": "a.png"} for image in images[3 * i : 3 * i + 3]]
        write(name, values, [0, 1, 2], names=NAMES, columns=columns)
    source = open_source(tmp_path)
    for records in (list(source.records()), list(source.records())):
        np.testing.assert_array_equal([record.image for record in records], images)
        assert [record.label for record in records] == 3 * [4, 3, 0]
        assert [record.split for record in records] == [split for split in SPLITS.values() for _ in range(3)]
        assert len({record.id for record in records}) == 9
        assert records[4].id == "train-00001-of-00002/000001"
        assert records[4].where == "train-00001-of-00002.parquet row 1"
    assert (source.kind, source.total, source.notes) == ("parquet", 9, [])


def test_the_split_may_be_the_folders_name(write, faces, tmp_path):
    image = encode(faces(1)[0])
    path = write("test/0000", [image], ["Sadness"])
    (record,) = open_source(path).records()
    assert (record.split, record.label) == ("test", 4)
    (record,) = open_source(write("faces", [image], ["joy"])).records()
    assert (record.split, record.label) == (None, 3)


def test_numbers_without_names_need_a_map(write, faces):
    path = write("train", [encode(image) for image in faces(3)], [0, 1, 7])
    with pytest.raises(SourceError, match="datasets number their classes differently.* --map 0=EMOTION"):
        open_source(path)
    source = open_source(path, classes.parse(["0=fear", "1=neutral", "7=drop"]))
    assert [record.label for record in source.records()] == [2, 6] and source.total == 2
    assert source.notes[2] == "1 images of class 7 left out (--map 7=drop)"


def test_bad_rows_are_named_and_can_be_skipped(write, faces):
    good = {"bytes": encode(faces(1)[0]), "path": "a.png"}
    images = [good, good, {"bytes": None, "path": "a.png"}, {"bytes": b"PNG", "path": None}, None, good, good]
    path = write("train", images, [0, -1, 0, 0, 0, None, 1], names=NAMES)
    source, bad = open_source(path), []
    assert [record.label for record in source.records(bad.append)] == [4, 3]
    assert [error.where for error in bad] == [f"train.parquet row {i}" for i in range(1, 6)]
    reasons = ["no label", "a NoneType, expected the bytes", "cannot be decoded", "a NoneType", "no label"]
    assert all(reason in error.reason for reason, error in zip(reasons, bad, strict=True))
    assert source.total == 7
    with pytest.raises(PictureError, match="train.parquet row 1: no label"):
        list(source.records())


def test_files_that_cannot_be_used(write, faces, tmp_path, monkeypatch):
    image = encode(faces(1)[0])
    path = write("train", [image], [0], columns=("pixels", "id"))
    with pytest.raises(
        SourceError, match="the columns pixels, id, other; expected a column of images, named im"
    ):
        open_source(path)
    with pytest.raises(SourceError, match="has no image with a label"):
        open_source(write("train", [image], [-1], names=NAMES))
    with pytest.raises(SourceError, match="unknown emotion 'contempt'"):
        open_source(write("train", [image], [0], names=["contempt"]))
    path = write("train", [image], [0], names=NAMES)
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:9])
    for read in (lambda: open_source(path), lambda: list(source.records())):
        with pytest.raises(SourceError, match="train.parquet cannot be read .*expected a complete"):
            read()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"need the package pyarrow: pip install 'fer_jax\[huggingface\]'"):
        open_source(path)
