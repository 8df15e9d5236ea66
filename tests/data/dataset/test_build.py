"""Building a dataset and reading it back: faithful, atomic, safe for what is already there."""

import fcntl
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.dataset import build as dataset_build
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources.record import SourceError
from fer_jax.data.splits import clean_train

ROOT = Path(__file__).resolve().parents[3]
COUNTS = {"train": 30, "validation": 9, "test": 8}
USAGE = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}


@pytest.fixture
def csv_source(faces, write_csv):
    """(path, images [47, 48, 48], labels, splits): the rows of the three splits interleaved."""
    rng = np.random.default_rng(0)
    names = rng.permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
    images, labels = faces(47), rng.integers(0, 7, 47)
    path = write_csv(images, labels, [USAGE[name] for name in names])
    return path, images, labels, names


def build(source, out, **options):
    return dataset_build.build(source, out, progress=False, **options)


def run(code: str, *args: object) -> subprocess.CompletedProcess:
    """Runs code in a fresh interpreter that can import the package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


# --- what comes back is what went in ---


def test_round_trip(csv_source, tmp_path):
    path, images, labels, names = csv_source
    manifest = build(path, tmp_path / "data")
    for split, count in COUNTS.items():
        faces = read.load(tmp_path / "data", split)
        mine = names == split
        assert faces.images.shape == (count, 48, 48, 1)
        assert faces.images.dtype == np.uint8
        assert faces.labels.dtype == np.int32
        np.testing.assert_array_equal(faces.images[..., 0], images[mine])
        np.testing.assert_array_equal(faces.labels, labels[mine])
        np.testing.assert_array_equal(faces.targets, np.eye(7)[labels[mine]])
        assert faces.ids == [f"{USAGE[split]}/{i:06d}" for i in np.flatnonzero(mine)]
        assert manifest["splits"][split]["count"] == count
        assert list(manifest["splits"][split]["class_counts"].values()) == [
            int((labels[mine] == k).sum()) for k in range(7)
        ]
    train = images[names == "train"] / 255
    assert manifest["pixel_mean"] == pytest.approx(train.mean(), abs=1e-12)
    assert manifest["pixel_std"] == pytest.approx(train.std(), abs=1e-12)
    assert manifest["image_shape"] == [48, 48, 1]
    assert manifest["source_kind"] == "fer2013_csv"
    assert manifest["drawn_splits"] is None
    assert read.read_manifest(tmp_path / "data") == manifest
    assert list(tmp_path.glob(".*")) == []


def test_tfds_reads_it_without_this_package(csv_source, tmp_path):
    path, images, _, names = csv_source
    build(path, tmp_path / "data")
    code = """
        import sys, numpy as np, tensorflow_datasets as tfds
        source = tfds.builder_from_directory(sys.argv[1]).as_data_source(split="validation")
        np.save(sys.argv[2], np.stack([example["image"] for example in source]))
        assert "fer_jax" not in sys.modules
    """
    done = run(code, tmp_path / "data/fer/1.0.0", tmp_path / "read.npy")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "read.npy")
    np.testing.assert_array_equal(found[..., 0], images[names == "validation"])


def test_building_and_reading_need_no_tensorflow(csv_source, tmp_path):
    code = """
        import importlib.abc, importlib.util, sys

        class NoTensorFlow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "tensorflow":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        find_spec = importlib.util.find_spec  # how TFDS asks whether TensorFlow is installed
        importlib.util.find_spec = lambda name, package=None: (
            None if name.split(".")[0] == "tensorflow" else find_spec(name, package)
        )
        sys.meta_path.insert(0, NoTensorFlow())

        from fer_jax.data.dataset import build, read
        build.build(sys.argv[1], sys.argv[2], progress=False)
        print(len(read.load(sys.argv[2], "train")), "tensorflow" in sys.modules)
    """
    done = run(code, csv_source[0], tmp_path / "data")
    assert done.stdout.strip() == "30 False", done.stderr


def test_streamed_split_gives_the_same(csv_source, tmp_path):
    build(csv_source[0], tmp_path / "data")
    memory = read.load(tmp_path / "data", "train")
    streamed = read.load(tmp_path / "data", "train", max_bytes=1000)
    assert not isinstance(streamed.images, np.ndarray)
    assert streamed.images.shape == memory.images.shape
    for index in ([7, 0, 7], np.array([[1, 2], [3, -1]]), slice(25, None), 4, []):
        index = np.array(index, int) if isinstance(index, list) else index
        np.testing.assert_array_equal(streamed.images[index], memory.images[index])
    np.testing.assert_array_equal(streamed.labels, memory.labels)
    assert streamed.ids == memory.ids


def test_cleaning_a_streamed_split_leaves_it_on_disk(faces, write_csv, tmp_path):
    images = faces(9)
    images[3], images[5] = images[0], 77
    path = write_csv(images, [0, 1, 2, 3, 4, 5, 6, 0, 0], ["Training"] * 8 + ["PublicTest"])
    build(path, tmp_path / "data")
    memory, streamed = (
        clean_train(
            read.load(tmp_path / "data", "train", max_bytes=limit), drop_blank=True, merge_duplicates=True
        )[0]
        for limit in (2**30, 0)
    )
    assert isinstance(memory.images, np.ndarray) and not isinstance(streamed.images, np.ndarray)
    np.testing.assert_array_equal(memory.images[..., 0], images[[0, 1, 2, 4, 6, 7]])
    np.testing.assert_array_equal(streamed.images[:], memory.images)
    np.testing.assert_array_equal(streamed.images[[-1, 1]], memory.images[[-1, 1]])
    np.testing.assert_array_equal(streamed.labels, memory.labels)
    np.testing.assert_array_equal(streamed.targets, memory.targets)
    assert streamed.ids == memory.ids


def test_colour_and_grey_images_become_colour(faces, write_images, tmp_path):
    colour, grey = faces(1, shape=(9, 9, 3))[0], faces(1, 1, shape=(9, 9))[0]
    root = write_images({"train/sad/a.png": colour, "train/sad/b.png": grey})
    manifest = build(root, tmp_path / "data", validation_fraction=0, test_fraction=0)
    assert manifest["image_shape"] == [9, 9, 3]
    found = read.load(tmp_path / "data", "train").images
    np.testing.assert_array_equal(found, [colour, np.stack([grey] * 3, axis=-1)])
    pixels = np.stack([colour, np.stack([grey] * 3, axis=-1)]) / 255
    assert manifest["pixel_mean"] == pytest.approx(pixels.mean(), abs=1e-12)
    assert manifest["pixel_std"] == pytest.approx(pixels.std(), abs=1e-12)


def test_mixed_sizes_need_an_image_size(faces, write_images, tmp_path):
    small, large = faces(1, shape=(16, 16))[0], faces(1, shape=(64, 32))[0]
    root = write_images({"train/sad/a.png": small, "train/sad/b.png": large})
    manifest = build(root, tmp_path / "data", validation_fraction=0, test_fraction=0)
    assert manifest["image_shape"] is None
    with pytest.raises(read.DatasetError, match="give image_size, .*--config.data.image_size=48"):
        read.load(tmp_path / "data", "train")
    found = read.load(tmp_path / "data", "train", image_size=16).images
    np.testing.assert_array_equal(found[0, ..., 0], small)
    expected = Image.fromarray(large).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[1, ..., 0], expected)
    means = np.array([small.mean(), large.mean()])
    weights = np.array([small.size, large.size]) / (small.size + large.size)
    assert manifest["pixel_mean"] == pytest.approx(means @ weights / 255, abs=1e-12)


def test_content_hash_sees_pixels_labels_and_splits_only(faces, write_csv, tmp_path):
    images, labels, usages = faces(4), [0, 1, 2, 3], ["Training", "Training", "PublicTest", "PrivateTest"]

    def hash_of(order, images=images, labels=labels, usages=usages):
        path = write_csv(images[order], np.take(labels, order), np.take(usages, order))
        return build(path, tmp_path / "data", overwrite=True)["content_hash"]

    plain = hash_of([0, 1, 2, 3])
    assert hash_of([3, 1, 0, 2]) == plain
    darker = images.copy()
    darker[2, 5, 5] ^= 1
    assert hash_of([0, 1, 2, 3], images=darker) != plain
    assert hash_of([0, 1, 2, 3], labels=[0, 1, 2, 4]) != plain
    assert hash_of([0, 1, 2, 3], usages=["Training", "PublicTest", "Training", "PrivateTest"]) != plain


def test_order_hash_sees_the_order_within_a_split(faces, write_csv, tmp_path):
    images, labels, usages = faces(4), [0, 1, 2, 3], ["Training", "Training", "PublicTest", "PublicTest"]
    found = {}
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [1, 0, 2, 3], [0, 1, 3, 2]):
        path = write_csv(images[order], np.take(labels, order), np.take(usages, order))
        found[tuple(order)] = build(path, tmp_path / "".join(map(str, order)))
    splits = [manifest["splits"] for manifest in found.values()]
    plain, interleaved, train, validation = (
        tuple(split[name]["order_hash"] for name in ("train", "validation")) for split in splits
    )
    assert interleaved == plain
    assert train[1] == plain[1] and train[0] != plain[0]
    assert validation[0] == plain[0] and validation[1] != plain[1]
    assert len({tuple(split[name]["hash"] for name in ("train", "validation")) for split in splits}) == 1
    assert len({manifest["content_hash"] for manifest in found.values()}) == 1


# --- drawn splits ---


def class_folders(faces, per_class=30, twins=5):
    """{"CLASS/n.png": image}; the first `twins` images of a class have a copy of another name."""
    files = {}
    for k, name in enumerate(EMOTIONS):
        images = faces(per_class, seed=k, shape=(8, 8))
        files |= {f"{name}/{i:03d}.png": image for i, image in enumerate(images)}
        files |= {f"{name}/copy_{i}.png": images[i] for i in range(twins)}
    return files


def test_splits_are_drawn_group_safely_where_there_are_none(faces, write_images, tmp_path):
    root = write_images(class_folders(faces))
    options = {"validation_fraction": 0.2, "test_fraction": 0.2, "seed": 4}
    manifest = build(root, tmp_path / "data", **options)
    assert manifest["drawn_splits"] == {"fractions": {"validation": 0.2, "test": 0.2}, "seed": 4}
    pixels = {}
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        loaded = read.load(tmp_path / "data", split)
        pixels[split] = {image.tobytes() for image in loaded.images}
        np.testing.assert_allclose(np.bincount(loaded.labels), 35 * share, atol=2)
    assert not pixels["train"] & pixels["validation"]
    assert not pixels["train"] & pixels["test"]
    assert not pixels["validation"] & pixels["test"]
    again = build(root, tmp_path / "again", **options)
    assert again["content_hash"] == manifest["content_hash"]
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
    train, validation = (read.load(tmp_path / "data", name) for name in ("train", "validation"))
    twins = {i.tobytes() for i in train.images} & {i.tobytes() for i in validation.images}
    assert not twins


def test_too_few_images_to_draw_from(faces, write_images, tmp_path):
    root = write_images({f"sad/{i}.png": image for i, image in enumerate(faces(3))})
    with pytest.raises(SourceError, match="3 images are too few to draw a validation split of 10%"):
        build(root, tmp_path / "data")
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.5, 0.5)])
def test_fractions_out_of_range(csv_source, tmp_path, fractions):
    with pytest.raises(read.DatasetError, match="must be 0 or more and leave something"):
        build(
            csv_source[0],
            tmp_path / "data",
            validation_fraction=fractions[0],
            test_fraction=fractions[1],
        )


# --- what is already there ---


def test_same_dataset_is_kept(csv_source, tmp_path, capsys):
    build(csv_source[0], tmp_path / "data")
    before = (tmp_path / "data/manifest.json").stat().st_mtime_ns
    dataset_build.build(csv_source[0], tmp_path / "data")
    assert "already holds this dataset" in capsys.readouterr().out
    assert (tmp_path / "data/manifest.json").stat().st_mtime_ns == before


def test_other_dataset_is_kept_unless_overwrite(csv_source, faces, write_csv, tmp_path):
    old = build(csv_source[0], tmp_path / "data")
    other = write_csv(faces(5, 9), [1] * 5, ["Training"] * 4 + ["PublicTest"], name="other.csv")
    with pytest.raises(read.DatasetError, match=r"holds another dataset .*--overwrite"):
        build(other, tmp_path / "data")
    assert read.read_manifest(tmp_path / "data") == old
    new = build(other, tmp_path / "data", overwrite=True)
    assert read.read_manifest(tmp_path / "data") == new
    assert len(read.load(tmp_path / "data", "train")) == 4
    assert list(tmp_path.glob(".*")) == []


def test_foreign_files_are_never_touched(csv_source, tmp_path):
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(read.DatasetError, match=r"holds other things \(thesis.tex\)"):
            build(csv_source[0], out, overwrite=overwrite)
    assert (out / "thesis.tex").read_text() == "years of work"
    with pytest.raises(read.DatasetError, match="is a file; choose another --out"):
        build(csv_source[0], out / "thesis.tex")


def test_empty_folder_is_used(csv_source, tmp_path):
    (tmp_path / "data").mkdir()
    build(csv_source[0], tmp_path / "data")
    assert len(read.load(tmp_path / "data", "test")) == 8


def test_out_inside_the_source_is_refused(faces, write_images):
    root = write_images({"sad/1.png": faces(1)[0]})
    with pytest.raises(read.DatasetError, match="lies inside the source"):
        build(root, root / "data")


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest", "field", "version"])
def test_damage_is_found_and_a_rerun_tells_how_to_repair(csv_source, tmp_path, damage):
    manifest = build(csv_source[0], tmp_path / "data")
    records = next((tmp_path / "data/fer/1.0.0").glob("*train*"))
    path = tmp_path / "data/manifest.json"
    if damage == "truncate":
        os.truncate(records, records.stat().st_size // 2)
        message = r"train.array_record\S* has \d+ bytes, expected \d+"
    elif damage == "remove":
        records.unlink()
        message = r"train.array_record\S* is missing"
    elif damage == "manifest":
        path.write_text(path.read_text()[:100])
        message = "manifest.json is damaged"
    elif damage == "field":
        path.write_text(json.dumps({key: manifest[key] for key in manifest if key != "splits"}))
        message = r"manifest.json is damaged \(it lacks splits\)"
    else:
        path.write_text(json.dumps({**manifest, "format_version": 99}))
        message = "has format version 99, expected 2"
    with pytest.raises(read.DatasetError, match=message):
        read.load(tmp_path / "data", "train")
    with pytest.raises(read.DatasetError, match="with --overwrite"):
        build(csv_source[0], tmp_path / "data")
    build(csv_source[0], tmp_path / "data", overwrite=True)
    assert len(read.load(tmp_path / "data", "train")) == 30


@pytest.mark.parametrize("name", ["fer-train.array_record-00000-of-00001", "features.json"])
@pytest.mark.parametrize("max_bytes", [2**30, 0])
def test_other_bytes_in_a_file_are_found(csv_source, tmp_path, name, max_bytes):
    build(csv_source[0], tmp_path / "data")
    path = tmp_path / "data/fer/1.0.0" / name
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)
    message = f"train split in {tmp_path}/data/fer cannot be read.*run fer-jax prepare again"
    with pytest.raises(read.DatasetError, match=message):
        read.load(tmp_path / "data", "train", max_bytes=max_bytes).images[0]


def test_missing_dataset_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read.load(tmp_path / "nowhere", "train")
    command = f"fer-jax prepare --source PATH/TO/fer2013.csv --out {tmp_path}/nowhere"
    assert command in str(caught.value)


def test_missing_split_names_those_there_are(faces, write_csv, tmp_path):
    build(write_csv(faces(2), [0, 1], ["Training", "PublicTest"]), tmp_path / "data")
    with pytest.raises(read.DatasetError, match="no test split; it has: train, validation"):
        read.load(tmp_path / "data", "test")


# --- killed, disturbed, out of space ---

KILLED = """
    import os, sys
    from fer_jax.data.dataset import build, read, staging
    calls, method = 0, getattr(staging.Spool, sys.argv[3])

    def then_die(*args):
        global calls
        calls += 1
        if calls == 20:
            os._exit(9)
        return method(*args)

    setattr(staging.Spool, sys.argv[3], then_die)
    build.build(sys.argv[1], sys.argv[2], progress=False)
"""


@pytest.mark.parametrize("stage", ["add", "png"])
def test_killed_build_leaves_no_dataset_and_the_next_one_finishes(csv_source, tmp_path, stage):
    """Dies without any clean-up, while reading (add) and while writing the records (png)."""
    out = tmp_path / "data"
    assert run(KILLED, csv_source[0], out, stage).returncode == 9
    assert (tmp_path / ".data.building").exists()
    assert not out.exists()
    with pytest.raises(FileNotFoundError):
        read.load(out, "train")
    manifest = build(csv_source[0], out)
    assert manifest == {**build(csv_source[0], tmp_path / "clean"), "files": manifest["files"]}
    assert len(read.load(out, "train")) == 30
    assert list(tmp_path.glob(".*")) == []


def test_second_build_of_the_same_dataset_waits_its_turn(csv_source, tmp_path):
    folder = tmp_path / ".data.building"
    folder.mkdir()
    (folder / "spool").write_text("of the other process")
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(read.DatasetError, match="another process is building"):
            build(csv_source[0], tmp_path / "data")
    finally:
        os.close(lock)
    assert (folder / "spool").exists()


def test_full_disk_while_reading_and_while_writing(csv_source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def full_in_array_record(self, **_):
        raise RuntimeError("Failed to finalize: write() failed: No space left on device; writing x")

    from fer_jax.data.dataset import staging, tfds

    expected = r"cannot write \S*data: No space left on device; free some space or give an --out"
    for where, name, failure in (
        (staging.Spool, "add", full),
        (tfds.FerBuilder, "download_and_prepare", full_in_array_record),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, failure)
            with pytest.raises(read.DatasetError, match=expected):
                build(csv_source[0], tmp_path / "data")
        assert list(tmp_path.glob("*data*")) == []


def test_unwritable_place(csv_source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(read.DatasetError, match=r"cannot write \S*file/data: Not a directory"):
        build(csv_source[0], tmp_path / "file" / "data")
