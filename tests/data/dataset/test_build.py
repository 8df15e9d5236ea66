"""Tests building datasets: sizes, hashes, random splits, atomic writes, and existing folders."""

import fcntl
import os

import numpy as np
import pytest
from helpers import run_python, without_tensorflow
from PIL import Image

from fer_jax.data.dataset import build as build_module
from fer_jax.data.dataset import read, staging, tfds
from fer_jax.data.dataset.read import DatasetError
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources.record import SourceError


def build(source, out, **options):
    return build_module.build(source, out, **options)


NO_TENSORFLOW = """
import importlib.util, sys
find_spec = importlib.util.find_spec  # how TFDS asks whether TensorFlow is installed
importlib.util.find_spec = lambda name, *more: None if name[:10] == "tensorflow" else find_spec(name, *more)
"""
BUILD = """
from fer_jax.data.dataset import build, read
build.build(sys.argv[1], sys.argv[2])
print(len(read.load(sys.argv[2], "train")), "tensorflow" in sys.modules)
"""


def test_building_and_reading_need_no_tensorflow(built, tmp_path):
    done = run_python("-c", NO_TENSORFLOW + BUILD, built.source, tmp_path / "data", **without_tensorflow())
    assert done.stdout.strip() == "30 False", done.stderr


# --- images ---


def test_color_and_grey_images_become_color(faces, write_images, tmp_path):
    color, gray = faces(1, shape=(9, 9, 3))[0], faces(1, 1, shape=(9, 9))[0]
    root = write_images({"train/sad/a.png": color, "train/sad/b.png": gray})
    manifest = build(root, tmp_path / "data", validation_fraction=0, test_fraction=0)
    assert manifest["image_shape"] == [9, 9, 3]
    found, expected = read.load(tmp_path / "data", "train").images, [color, np.stack([gray] * 3, axis=-1)]
    np.testing.assert_array_equal(found, expected)
    assert manifest["pixel_mean"] == pytest.approx(np.mean(expected) / 255, abs=1e-12)
    assert manifest["pixel_std"] == pytest.approx(np.std(expected) / 255, abs=1e-12)


def test_mixed_sizes_need_an_image_size(faces, write_images, tmp_path):
    small, large = faces(1, shape=(16, 16))[0], faces(1, shape=(64, 32))[0]
    root = write_images({"train/sad/a.png": small, "train/sad/b.png": large})
    manifest = build(root, tmp_path / "data", validation_fraction=0, test_fraction=0)
    assert manifest["image_shape"] is None
    with pytest.raises(DatasetError, match="set image_size, .*--config.data.image_size=48"):
        read.load(tmp_path / "data", "train")
    found = read.load(tmp_path / "data", "train", image_size=16).images
    np.testing.assert_array_equal(found[0, ..., 0], small)
    expected = Image.fromarray(large).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[1, ..., 0], expected)
    means = np.array([small.mean(), large.mean()])
    weights = np.array([small.size, large.size]) / (small.size + large.size)
    assert manifest["pixel_mean"] == pytest.approx(means @ weights / 255, abs=1e-12)


# --- hashes ---


def test_hashes_see_pixels_labels_splits_and_the_order_within_a_split(faces, write_csv, tmp_path):
    images, usages = faces(4), ["Training", "Training", "PublicTest", "PublicTest"]

    def hashes(order=(0, 1, 2, 3), images=images, labels=(0, 1, 2, 3), usages=usages):
        """Returns the content hash, and the content and order hashes of each split."""
        order = list(order)
        path = write_csv(images[order], np.take(labels, order), np.take(usages, order))
        manifest = build(path, tmp_path / str(len(list(tmp_path.iterdir()))))
        splits = [manifest["splits"][name] for name in ("train", "validation")]
        return manifest["content_hash"], *((split["hash"], split["order_hash"]) for split in splits)

    plain = hashes()
    assert hashes([2, 0, 3, 1]) == plain  # interleaved
    content, train, validation = hashes([1, 0, 2, 3])
    assert (content, train[0], validation) == (plain[0], plain[1][0], plain[2]) and train[1] != plain[1][1]
    darker = images.copy()
    darker[2, 5, 5] ^= 1
    elsewhere = ["Training", "PublicTest", "Training", "PublicTest"]
    for change in ({"images": darker}, {"labels": [0, 1, 2, 4]}, {"usages": elsewhere}):
        changed = hashes(**change)
        assert changed[0] != plain[0] and changed[2][0] != plain[2][0]


# --- random splits ---


def class_folders(faces, per_class=30, duplicates=5):
    """Returns {"CLASS/n.png": image}; the first images of each class occur twice, under two names."""
    files = {}
    for k, name in enumerate(EMOTIONS):
        images = faces(per_class, seed=k, shape=(8, 8))
        files |= {f"{name}/{i:03d}.png": image for i, image in enumerate(images)}
        files |= {f"{name}/copy_{i}.png": images[i] for i in range(duplicates)}
    return files


def pixels(out, split):
    return {image.tobytes() for image in read.load(out, split).images}


def test_splits_are_drawn_group_safely_where_there_are_none(faces, write_images, tmp_path):
    root = write_images(class_folders(faces))
    options = {"validation_fraction": 0.2, "test_fraction": 0.2, "seed": 4}
    manifest = build(root, tmp_path / "data", **options)
    assert manifest["drawn_splits"] == {"fractions": {"validation": 0.2, "test": 0.2}, "seed": 4}
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        counts = list(manifest["splits"][split]["class_counts"].values())
        np.testing.assert_allclose(counts, 35 * share, atol=2)
    parts = [pixels(tmp_path / "data", split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 7 * 30
    assert build(root, tmp_path / "again", **options)["content_hash"] == manifest["content_hash"]
    other = build(root, tmp_path / "other", **{**options, "seed": 5})
    assert other["content_hash"] != manifest["content_hash"]


def test_validation_is_drawn_out_of_train_only(faces, write_images, tmp_path):
    files = {f"train/{name}": image for name, image in class_folders(faces).items()}
    files |= {f"test/happy/{i}.png": image for i, image in enumerate(faces(6, 99, (8, 8)))}
    manifest = build(write_images(files), tmp_path / "data", validation_fraction=0.2)
    assert manifest["drawn_splits"] == {"fractions": {"validation": 0.2}, "seed": 0}
    counts = {name: split["count"] for name, split in manifest["splits"].items()}
    assert counts["test"] == 6
    assert counts["train"] + counts["validation"] == 7 * 35
    assert counts["validation"] == pytest.approx(49, abs=7)
    assert not pixels(tmp_path / "data", "train") & pixels(tmp_path / "data", "validation")


def test_too_few_images_to_draw_from(write_images, tmp_path):
    root = write_images(["sad/0.png", "sad/1.png", "sad/2.png"])
    with pytest.raises(SourceError, match="3 images are too few to draw a validation split of 10%"):
        build(root, tmp_path / "data")
    assert list(tmp_path.iterdir()) == [root]


# --- existing folders ---


def test_same_dataset_is_kept(built, capsys):
    before = (built.out / "manifest.json").stat().st_mtime_ns
    assert build_module.build(built.source, built.out) == built.manifest
    assert "already has this dataset" in capsys.readouterr().out
    assert (built.out / "manifest.json").stat().st_mtime_ns == before


def test_other_dataset_is_kept_unless_overwrite(built, faces, write_csv, tmp_path):
    out = built.copy(tmp_path / "data")
    other = write_csv(faces(5, 9), [1] * 5, ["Training"] * 4 + ["PublicTest"], name="other.csv")
    with pytest.raises(DatasetError, match=r"contains another dataset .*--overwrite"):
        build(other, out)
    assert read.read_manifest(out) == built.manifest
    new = build(other, out, overwrite=True)
    assert read.read_manifest(out) == new
    assert len(read.load(out, "train")) == 4
    assert list(tmp_path.glob(".*")) == []


def test_foreign_files_are_never_touched(built, tmp_path):
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(DatasetError, match=r"contains other files \(thesis.tex\)"):
            build(built.source, out, overwrite=overwrite)
    assert (out / "thesis.tex").read_text() == "years of work"
    with pytest.raises(DatasetError, match="is a file: choose another --out"):
        build(built.source, out / "thesis.tex")
    with pytest.raises(OSError, match=r"cannot write to \S*thesis.tex/data \(Not a directory\)"):
        build(built.source, out / "thesis.tex" / "data")


def test_out_inside_the_source_is_refused(write_images):
    root = write_images(["sad/1.png"])
    with pytest.raises(DatasetError, match="is inside the source"):
        build(root, root / "data")


# --- killed processes, concurrent changes, full disks ---

KILLED = """
import itertools, os
from fer_jax.data.dataset import build, staging
calls, method = itertools.count(1), getattr(staging.Staging, sys.argv[3])
then_die = lambda *args: os._exit(9) if next(calls) == 20 else method(*args)
setattr(staging.Staging, sys.argv[3], then_die)
build.build(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("stage", ["add", "png"])
def test_killed_build_leaves_no_dataset_and_the_next_one_finishes(built, forked, tmp_path, stage):
    """The process is killed while reading (add) or writing records (png)."""
    out = tmp_path / "data"
    assert forked("python", [NO_TENSORFLOW + KILLED, built.source, out, stage])[0].returncode == 9
    assert (tmp_path / ".data.building").exists()
    assert not out.exists()
    out.mkdir()  # an empty folder is used
    manifest = build(built.source, out)
    assert manifest == {**built.manifest, "files": manifest["files"]}
    assert len(read.load(out, "train")) == 30
    assert list(tmp_path.glob(".*")) == []


def test_second_build_of_the_same_dataset_is_refused(built, tmp_path):
    folder = tmp_path / ".data.building"
    folder.mkdir()
    (folder / "staging").write_text("of the other process")
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(DatasetError, match="another process is building"):
            build(built.source, tmp_path / "data")
    finally:
        os.close(lock)
    assert (folder / "staging").exists()


def test_full_disk_while_reading_and_while_writing(built, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def full_in_array_record(self, **_):
        raise RuntimeError("Failed to finalize: write() failed: No space left on device; writing x")

    for where, name, failure in (
        (staging.Staging, "add", full),
        (tfds.FerBuilder, "download_and_prepare", full_in_array_record),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, failure)
            expected = r"cannot write to \S*data \(No space left on device\); give another --out"
            with pytest.raises(OSError, match=expected):
                build(built.source, tmp_path / "data")
        assert list(tmp_path.glob("*data*")) == []
