"""Tests the audit against brute force, on planted defects, and on the real FER2013."""

import importlib.util
import json
import re

import numpy as np
import pytest
from helpers import script
from PIL import Image

from fer_jax.data import fer2013_reference
from fer_jax.data.audit import audit
from fer_jax.data.sources.record import Record, Source


def audit_of(images, labels, splits, *, kind="class_folders", path="mine", threshold=0.9):
    """Returns the audit of arrays."""

    def read():
        for i, (image, label, split) in enumerate(zip(images, labels, splits, strict=True)):
            yield Record(image, int(label), split, f"{i:06d}", f"image {i}")

    source = Source(kind, path, len(labels), read)
    data = audit.collect(source)
    return data, audit.examine(source, data, threshold)


def test_identical_groups_by_hand(faces):
    a, b, c, d, e = faces(5)
    blank = np.zeros((48, 48), np.uint8)
    images = [a, a, b, b, b, c, c, d, e, blank, blank]
    labels = [0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 6]
    names = ["train", "train", "train", "test", "test", "validation", "test", *["train"] * 4]
    _, report = audit_of(images, labels, names)
    identical = report["identical"]
    assert [identical[key] for key in ("groups", "images", "conflicting_groups")] == [4, 9, 1]
    assert identical["groups_by_splits"] == {"train": 2, "train + test": 1, "validation + test": 1}
    assert identical["images_with_copy"] == {
        "train": {"train": 4, "validation": 0, "test": 1},
        "validation": {"train": 0, "validation": 0, "test": 1},
        "test": {"train": 2, "validation": 1, "test": 2},
    }
    (conflict,) = [group for group in identical["members"] if group["conflict"]]
    assert [image["label"] for image in conflict["images"]] == ["disgust", "disgust", "fear"]
    assert report["blank"]["count"] == 2
    assert report["near"]["pairs"] == 0  # identical pairs are not counted twice
    assert report["near"]["images_with_copy"]["test"] == {"train": 2, "validation": 1, "test": 2}
    warnings = "\n".join(report["warnings"])
    for warning in (
        "blank images (a single gray level or color): 2",
        "test images with an identical duplicate in train: 2; with an identical or near duplicate: 2 (66.7%)",
        "groups of identical images with different labels: 1",
        "validation has no images of: angry, disgust, fear, sad, surprise, neutral",
    ):
        assert warning in warnings


def test_near_pairs_across_splits_and_labels(related_faces):
    names = np.array(["train", "test", "test"])[np.arange(240) % 3]
    _, report = audit_of(related_faces, np.arange(240) % 7, names, threshold=0.95)
    with np.errstate(invalid="ignore"):
        near = np.triu(np.corrcoef(related_faces.reshape(240, -1)) >= 0.95, k=1)
    first, second = np.nonzero(near)
    assert report["near"]["pairs"] == len(first)
    assert report["near"]["images"] == len(set(first) | set(second))
    assert report["near"]["pairs_by_splits"] == {"train + test": len(first)}
    agreement = np.mean(first % 7 == second % 7)
    assert report["near"]["label_agreement"] == pytest.approx(agreement, abs=1e-4)
    values = [pair["correlation"] for pair in report["near"]["closest"]]
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0.95


def test_pixel_statistics_are_numpy_s(faces):
    images, labels = faces(60), np.arange(60) % 7
    names = ["train"] * 40 + ["test"] * 20
    _, report = audit_of(images, labels, names)
    for name, chosen in (("train", images[:40]), ("test", images[40:])):
        scaled = chosen / 255
        expected = {"mean": scaled.mean(), "std": scaled.std()}
        expected["sharpness"] = np.abs(np.diff(scaled, axis=2)).mean()
        assert report["pixels"]["splits"][name] == pytest.approx(expected, abs=1e-5)
    sad = images[labels == 4].mean() / 255
    assert report["pixels"]["classes"]["sad"]["mean"] == pytest.approx(sad, abs=1e-5)


def test_large_colour_images_are_compared_small_and_grey(faces):
    base = np.asarray(Image.fromarray(faces(1, shape=(12, 12))[0]).resize((96, 96)))
    color = np.stack([base, base, 255 - base // 2], axis=-1)
    twin = np.asarray(Image.fromarray(color).resize((48, 48), Image.Resampling.BOX))
    one_colour = np.full((30, 30, 3), (10, 200, 30), np.uint8)
    data, report = audit_of([color, twin, one_colour], [1, 1, 2], [None] * 3)
    assert data.small.shape == (3, 48, 48)
    assert report["shapes"] == {"96 x 96 RGB": 1, "48 x 48 RGB": 1, "30 x 30 RGB": 1}
    assert any(line.startswith("images with a near duplicate: 2 (66.7%)") for line in report["warnings"])
    assert (report["near"]["pairs"], report["identical"]["groups"], report["blank"]["count"]) == (1, 0, 1)
    assert list(report["splits"]) == ["all"]


def test_samples_are_drawn_with_equal_chance(faces):
    images = list(faces(200, shape=(2, 2)))
    kept = np.zeros(200)
    for seed in range(300):
        row, rng = [], np.random.default_rng(seed)
        for i, image in enumerate(images):
            audit._keep_sample(row, i, image, rng)
        kept += [any(image is other for other in row) for image in images]
        assert len(row) == audit.SAMPLES
    expected = 300 * audit.SAMPLES / 200
    np.testing.assert_allclose(kept.reshape(2, 100).mean(axis=1), expected, atol=1)


@pytest.mark.drawn
def test_files_of_the_report(faces, write_csv, tmp_path, capsys):
    images = faces(20)
    images[7] = images[3]
    labels = np.arange(20) % 7
    path = write_csv(images, labels, ["Training"] * 15 + ["PublicTest"] * 5)
    with open(path, "a") as file:
        file.write("9,1 2 3,Training\n")
    command, flags = script("audit"), ["--out", str(tmp_path / "out"), "--near_threshold", "0.8"]
    assert [command.main(["--source", str(source), *flags]) for source in (tmp_path / "no", path)] == [2, 0]
    printed = capsys.readouterr()
    assert "no does not exist" in printed.err and f"report: {tmp_path / 'out/audit.md'}" in printed.out
    report = json.loads((tmp_path / "out/audit.json").read_text())
    text = (tmp_path / "out/audit.md").read_text()
    for name in report["pictures"]:
        assert f"]({name})" in text
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 300
    for line in (
        "fer2013.csv row 22: emotion is '9', expected a number from 0 to 6",
        "1 groups of identical images, 2 images in all",
        "| all | 15 | 5 |",
    ):
        assert line in text
    assert report["bad"]["count"] == 1 and "near_duplicates.png" not in report["pictures"]


def official_report(kind="fer2013_csv", source="fer2013.csv"):
    counts = fer2013_reference.COUNTS
    splits = {
        name: {"count": sum(of), "class_counts": dict(zip(audit.EMOTIONS, of, strict=True))}
        for name, of in counts.items()
    }
    pixels = {"splits": {"train": dict(fer2013_reference.PIXELS)}}
    shapes = {fer2013_reference.SHAPE: 35887}
    return {"kind": kind, "source": source, "splits": splits, "shapes": shapes, "pixels": pixels}


def test_official_data_have_the_published_counts_and_no_differences():
    assert [sum(counts) for counts in fer2013_reference.COUNTS.values()] == [28709, 3589, 3589]
    assert fer2013_reference.compare(official_report()) == {"compared": True, "differences": []}


def test_altered_copies_are_told():
    balanced = official_report()
    counts = dict.fromkeys(audit.EMOTIONS, 7215)
    balanced["splits"]["train"] = {"count": 7 * 7215, "class_counts": counts}
    del balanced["splits"]["validation"]
    balanced["shapes"] = {"96 x 96 RGB": 1}
    balanced["pixels"]["splits"]["train"] = {"mean": 0.55, "std": 0.30, "sharpness": 0.02}
    found = "\n".join(fer2013_reference.compare(balanced)["differences"])
    assert "happy" not in found
    for difference in (
        "train has 50,505 images instead of FER2013's 28,709",
        "disgust 7,215 (436)",
        "FER2013 has 3,589 validation images, but this source has none",
        "FER2013's images are 48 x 48 gray, but these are 96 x 96 RGB",
        "the mean of the train pixels is 0.5500, FER2013's is 0.5077",
        "the std of the train pixels",
        "blurred, sharpened or rescaled?",
    ):
        assert difference in found


@pytest.mark.parametrize(
    "source", ["holiday_pictures", "different_people", "transfer", "Offer-2013",
               "data/FER2013", "my_fer", "archive FER-2013"],
)  # fmt: skip
def test_only_what_is_named_fer_is_compared(source):
    mine = official_report("class_folders", source)
    mine["splits"] = {"all": {"count": 3, "class_counts": {}}}
    found = fer2013_reference.compare(mine)
    assert found["compared"] == bool(found["differences"]) == ("fer" in re.split("[^a-z]+", source.lower()))


def test_real_fer2013(shared_dir, monkeypatch):
    """Training and PublicTest have the known numbers (without near duplicates, which are slow)."""
    monkeypatch.setattr(audit.near_duplicates, "near_pairs", lambda *_, **__: iter(()))
    spec = importlib.util.spec_from_file_location("unpack", shared_dir / "fer2013" / "unpack.py")
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    rows, images = unpack.load()
    labels = [int(row["emotion"]) for row in rows]
    names = [{"Training": "train", "PublicTest": "validation"}[row["Usage"]] for row in rows]
    _, report = audit_of(images, labels, names, kind="fer2013_csv", path="fer2013.csv")
    assert report["official"]["differences"] == ["FER2013 has 3,589 test images, but this source has none"]
    identical = report["identical"]
    assert [identical[key] for key in ("groups", "images", "conflicting_groups")] == [1270, 2799, 47]
    assert identical["images_with_copy"]["validation"]["train"] == 280
    assert report["blank"]["count"] == 12
