"""Tests reading a dataset, in memory and streamed, and detecting damage."""

import json
import os

import numpy as np
import pytest
from helpers import run_python

from fer_jax.data.dataset import read
from fer_jax.data.dataset.build import build
from fer_jax.data.dataset.read import DatasetError


def test_what_was_written_is_read(built):
    for split, count, usage in (
        ("train", 30, "Training"), ("validation", 9, "PublicTest"), ("test", 8, "PrivateTest")
    ):  # fmt: skip
        found, mine = read.load(built.out, split), built.splits == split
        assert found.images.shape == (count, 48, 48, 1)
        assert (found.images.dtype, found.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(found.images[..., 0], built.images[mine])
        np.testing.assert_array_equal(found.labels, built.labels[mine])
        np.testing.assert_array_equal(found.targets, np.eye(7)[built.labels[mine]])
        assert found.ids == [f"{usage}/{i:06d}" for i in np.flatnonzero(mine)]
        facts = built.manifest["splits"][split]
        assert facts["count"] == count
        counts = np.bincount(built.labels[mine], minlength=7)
        assert list(facts["class_counts"].values()) == counts.tolist()
    train = built.images[built.splits == "train"] / 255
    assert built.manifest["pixel_mean"] == pytest.approx(train.mean(), abs=1e-12)
    assert built.manifest["pixel_std"] == pytest.approx(train.std(), abs=1e-12)
    assert built.manifest["image_shape"] == [48, 48, 1]
    assert built.manifest["source_kind"] == "fer2013_csv"
    assert built.manifest["drawn_splits"] is None
    assert read.read_manifest(built.out) == built.manifest


def test_tfds_reads_it_without_this_package(built, tmp_path):
    code = (
        "import sys, numpy as np, tensorflow_datasets as tfds\n"
        "source = tfds.builder_from_directory(sys.argv[1]).as_data_source(split='validation')\n"
        "np.save(sys.argv[2], np.stack([example['image'] for example in source]))\n"
        "assert 'fer_jax' not in sys.modules\n"
    )
    done = run_python("-c", code, built.out / "fer/1.0.0", tmp_path / "read.npy")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "read.npy")
    np.testing.assert_array_equal(found[..., 0], built.images[built.splits == "validation"])


def test_streamed_split_gives_the_same(built):
    memory, streamed = (read.load(built.out, "train", max_bytes=limit) for limit in (2**30, 1000))
    assert not isinstance(streamed.images, np.ndarray)
    assert streamed.images.shape == memory.images.shape and len(streamed.images) == 30
    for index in (np.array([7, 0, 7]), np.array([[1, 2], [3, -1]]), slice(25, None), 4, np.array([], int)):
        np.testing.assert_array_equal(streamed.images[index], memory.images[index])
    np.testing.assert_array_equal(streamed.labels, memory.labels)
    assert streamed.ids == memory.ids


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncate", r"train.array_record\S* has \d+ bytes, expected \d+"),
        ("remove", r"train.array_record\S* is missing"),
        ("manifest", "manifest.json is damaged"),
        ("field", r"manifest.json is damaged \(it lacks splits\)"),
        ("version", "has format version 99, expected 2"),
    ],
)
def test_damage_is_found_and_a_rerun_tells_how_to_repair(built, tmp_path, damage, message):
    out = built.copy(tmp_path / "data")
    records, path = next((out / "fer/1.0.0").glob("*train*")), out / "manifest.json"
    if damage == "truncate":
        os.truncate(records, records.stat().st_size // 2)
    elif damage == "remove":
        records.unlink()
    elif damage == "manifest":
        path.write_text(path.read_text()[:100])
    elif damage == "field":
        path.write_text(json.dumps({key: value for key, value in built.manifest.items() if key != "splits"}))
    else:
        path.write_text(json.dumps({**built.manifest, "format_version": 99}))
    with pytest.raises(DatasetError, match=message):
        read.load(out, "train")
    with pytest.raises(DatasetError, match="with --overwrite"):
        build(built.source, out)
    build(built.source, out, overwrite=True)
    assert len(read.load(out, "train")) == 30


@pytest.mark.parametrize("name", ["fer-train.array_record-00000-of-00001", "features.json"])
@pytest.mark.parametrize("max_bytes", [2**30, 0])
def test_other_bytes_in_a_file_are_found(built, tmp_path, name, max_bytes):
    path = built.copy(tmp_path / "data") / "fer/1.0.0" / name
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)
    message = f"train split in {tmp_path}/data/fer cannot be read.*run fer-jax prepare again"
    with pytest.raises(DatasetError, match=message):
        read.load(tmp_path / "data", "train", max_bytes=max_bytes).images[0]


def test_another_number_of_records_than_the_manifest_s_is_found(built, tmp_path):
    out = built.copy(tmp_path / "data")
    text = (out / "manifest.json").read_text().replace('"count": 30', '"count": 31')
    (out / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match="train has 30 images, but the manifest 31; delete"):
        read.load(out, "train")


def test_missing_datasets_and_splits(built, faces, write_csv, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read.load(tmp_path / "nowhere", "train")
    command = f"fer-jax prepare --source PATH/TO/fer2013.csv --out {tmp_path}/nowhere"
    assert command in str(caught.value)
    build(write_csv(faces(2), [0, 1], ["Training", "PublicTest"]), tmp_path / "data")
    with pytest.raises(DatasetError, match="no test split; it has: train, validation"):
        read.load(tmp_path / "data", "test")


def test_a_manifest_of_before_has_no_annotations(built, tmp_path):
    path = built.copy(tmp_path / "data") / "manifest.json"
    path.write_text(path.read_text().replace('"annotations": [],', ""))
    assert "annotations" not in path.read_text()
    assert read.read_manifest(tmp_path / "data")["annotations"] == []
    assert read.load(tmp_path / "data", "train").votes is None
