"""Tests folders of images: layouts, splits, classes, and rejected or skipped files."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fer_jax.data.decoding import PictureError, is_system_name
from fer_jax.data.sources import classes
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SourceError

NUMBERED = [f"{i}/a.png" for i in range(7)]
FROM_ONE = [f"{i + 1}/a.png" for i in range(7)]
KAGGLE = ["train/sad/Training_1.png", "test/sad/PublicTest_2.png", "test/anger/PrivateTest_3.png"]


def found(source):
    """Returns {id: (split, label)}."""
    return {record.id: (record.split, record.label) for record in source.records()}


# --- splits ---


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("PublicTest", "validation"),
        ("test", "test"),
        ("PrivateTest", "test"),
    ],
)
def test_split_folders(write_images, folder, split):
    source = open_source(write_images([f"{folder}/Surprised/x/1.png"]))
    assert source.kind == "split_folders"
    assert found(source) == {f"{folder}/Surprised/x/1.png": (split, 5)}


def test_kaggle_names_decide_the_split_as_its_test_folder_mixes_two(write_images):
    source = open_source(write_images([*KAGGLE, "train/sad/no_prefix.png"]))
    assert source.kind == "kaggle_folders" and source.notes == []
    expected = [("train", 4), ("validation", 4), ("test", 0), ("train", 4)]
    assert found(source) == dict(zip([*KAGGLE, "train/sad/no_prefix.png"], expected, strict=True))


def test_a_validation_folder_goes_before_kaggle_names(write_images):
    """Covers the usual re-split of Kaggle's folders."""
    files = ["train/sad/Training_1.png", "val/sad/Training_2.png", "test/sad/PublicTest_3.png"]
    root = write_images(files)
    source = open_source(root)
    assert source.kind == "split_folders"
    assert [split for split, _ in found(source).values()] == ["test", "train", "validation"]
    assert source.notes == [
        "the names of 1 images (Training_, PublicTest_, PrivateTest_) contradict their folders; splits "
        "are by folders (--splits names uses the names)"
    ]
    chosen = open_source(root, splits="names")
    assert [split for split, _ in found(chosen).values()] == ["validation", "train", "train"]
    assert chosen.notes == []


def test_names_that_contradict_folders_win_with_a_note_unless_folders_are_chosen(write_images):
    root = write_images([*KAGGLE, "train/sad/PrivateTest_4.png"])
    source = open_source(root)
    assert found(source)["train/sad/PrivateTest_4.png"] == ("test", 4)
    assert "names of 1 images" in source.notes[0] and "--splits folders uses the folders" in source.notes[0]
    chosen = found(open_source(root, splits="folders"))
    assert [split for split, _ in chosen.values()] == ["test", "test", "train", "train"]


def test_kaggle_image_without_prefix_in_test_has_no_known_split(write_images):
    root = write_images(["train/sad/Training_1.png", "test/sad/2.png"])
    with pytest.raises(PictureError, match=r"test/sad/2\.png: its name lacks the prefix Training_"):
        list(open_source(root).records())


def test_test_folder_without_prefixes_cannot_be_told_apart(write_images):
    source = open_source(write_images(["train/sad/1.png", "test/sad/2.png"]))
    assert source.kind == "split_folders"
    assert "mixes PublicTest and PrivateTest, which cannot be separated" in source.notes[0]


# --- classes ---


def test_class_folders_are_read_sorted(write_images):
    source = open_source(write_images(["sadness/b.png", "sadness/a.png", "Happiness/c.png"]))
    assert source.kind == "class_folders" and source.notes == []
    assert list(found(source).items()) == [
        ("Happiness/c.png", (None, 3)),
        ("sadness/a.png", (None, 4)),
        ("sadness/b.png", (None, 4)),
    ]


AFFECTNET = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"]
RAFDB = ["surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"]


@pytest.mark.parametrize(
    ("files", "words", "labels"),
    [
        (NUMBERED, [], [0, 1, 2, 3, 4, 5, 6]),
        (NUMBERED, [f"{i}={name}" for i, name in enumerate(AFFECTNET)], [6, 3, 4, 5, 2, 1, 0]),
        (NUMBERED, ["6=drop"], [0, 1, 2, 3, 4, 5]),
        (FROM_ONE, [f"{i + 1}={name}" for i, name in enumerate(RAFDB)], [5, 2, 1, 3, 4, 0, 6]),
        (["Contempt/1.png", "sad/1.png", "unknown/1.png"], ["contempt=disgusted", "unknown=drop"], [1, 4]),
        (["angry/1.png", "sad/1.png"], ["angry=sad"], [4, 4]),
    ],
)  # fmt: skip
def test_an_explicit_map_goes_before_names_and_numbers(write_images, files, words, labels):
    source = open_source(write_images(files), classes.parse(words))
    assert [label for _, label in found(source).values()] == labels and source.total == len(labels)
    taken = [note for note in source.notes if "(--map " in note]
    assert len(taken) == len(words)
    if "contempt=disgusted" in words:
        assert taken == [
            "1 images of class contempt taken as disgust (--map contempt=disgust)",
            "1 images of class unknown left out (--map unknown=drop)",
        ]


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        (["contempt/1.png", "sad/1.png"], [], "unknown emotion 'contempt'; known.*--map contempt=drop"),
        (["train/happy/1.png", "happy/1.png"], [], r"images/happy is not a split, but train next to it is"),
        (FROM_ONE, [], "only the numbers 0 to 6, all seven, are accepted.*RAF-DB's, give --map 1=surprise"),
        ([f"{i}/a.png" for i in range(8)], [], "AffectNet's, give --map 0=neutral .*6=angry --map 7=drop"),
        ([f"{i}/a.png" for i in range(8)], ["7=drop"], "only the numbers.*--map 0=EMOTION"),
        (NUMBERED, ["0=neutral"], "unknown emotion '1'.*--map 1=EMOTION"),
        ([f"AffectNet7/{name}" for name in NUMBERED], [], "give --map 0=neutral --map 1=happy"),
        (["sad/1.png"], ["contemt=drop"], "has no class folder contemt, which --map names; it has: sad"),
    ],
)  # fmt: skip
def test_classes_that_are_not_known(write_images, files, words, message):
    root = write_images(files)
    with pytest.raises(SourceError, match=message):
        open_source(root / "AffectNet7" if "Affect" in files[0] else root, classes.parse(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["contempt"], "--map contempt: expected CLASS=EMOTION or CLASS=drop"),
        (["=drop"], "--map =drop: expected CLASS=EMOTION"),
        (["contempt=scorn"], "--map contempt=scorn: unknown emotion 'scorn'.*or drop"),
        (["contempt=drop", "Contempt=sad"], "--map Contempt=sad: Contempt is already mapped to drop"),
    ],
)
def test_a_map_that_cannot_be_read(words, message):
    with pytest.raises(SourceError, match=message):
        classes.parse(words)


def test_class_names_in_either_unicode_form(write_images):
    """macOS decomposes accented characters."""
    names = [unicodedata.normalize(form, "fâché") for form in ("NFD", "NFC")]
    assert names[0] != names[1]
    for on_disk, typed in (names, names[::-1]):
        root = write_images([f"{on_disk}/1.png"], root=f"{len(on_disk)}")
        assert [
            label for _, label in found(open_source(root, classes.parse([f"{typed}=angry"]))).values()
        ] == [0]


def test_maps_and_splits_are_for_folders(faces, write_csv):
    path = write_csv(faces(1), [3], ["Training"])
    for source in ("synthetic", path):
        with pytest.raises(
            SourceError, match="--map is for folders, lists, and Parquet files with class names, and"
        ):
            open_source(source, {"contempt": "drop"})
        with pytest.raises(SourceError, match="--splits is for class folders, and"):
            open_source(source, splits="names")


# --- other files ---


@pytest.mark.parametrize("around", ["archive", "archive/v2", "archive/v2/fer"])
def test_a_dataset_inside_other_folders_is_pointed_out(write_images, around):
    root = write_images([f"{around}/train/happy/1.png", "other/notes/1.png"])
    with pytest.raises(SourceError, match=rf"give \S*images/{around} as the source"):
        open_source(root)


def test_other_files_and_images_elsewhere_are_counted(write_images):
    root = write_images(["train/sad/a.png", "val/sad/b.png", "c.png", "train/d.png"])
    for name in ("readme.txt", "train/sad/notes.txt"):
        (root / name).write_text("")
    source = open_source(root)
    assert list(found(source)) == ["train/sad/a.png", "val/sad/b.png"]
    assert source.notes == [
        "ignored files without an image extension: 1 .txt",
        f"ignored images outside the class folders: 2, such as {root}/c.png",
    ]


def test_what_systems_leave_in_folders_is_never_an_image(write_images):
    names = ["@eaDir/a.png/SYNOPHOTO_THUMB_M.png", "__MACOSX/._a.png", "#recycle/x.png", ".thumbnails/x.png"]
    names += ["$RECYCLE.BIN/x.png", "._a.png", "System Volume Information/x.png", "lost+found/x.png"]
    root = write_images(["sad/a.png", *names, *(f"sad/{name}" for name in names)])
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (root / "sad" / name).write_text("")
        assert is_system_name(name)
    source = open_source(root)
    assert list(found(source)) == ["sad/a.png"] and source.notes == []


def test_links_lead_neither_in_circles_nor_twice_to_an_image(faces, write_images):
    a, b, c = faces(3)
    root = write_images({"happy/a.png": a, "sad/b.png": b})
    elsewhere = write_images({"c.png": c}, "elsewhere")
    for name in ("more", "more_again"):
        (root / "happy" / name).symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "happy" / "circle").symlink_to(root / "happy")
    (root / "happy" / "other_class").symlink_to(root / "sad")
    records = list(open_source(root).records())
    assert [r.label for r in records] == [3, 3, 4]
    np.testing.assert_array_equal([r.image for r in records], [a, c, b])


# --- unusable folders and files ---


def test_folders_without_images(tmp_path):
    with pytest.raises(SourceError, match="has no subfolders and is empty; expected images in"):
        open_source(tmp_path)
    (tmp_path / "happy").mkdir()
    with pytest.raises(SourceError, match=r"no images below .* \(looked in 1 class folders"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["", "train", "train/sad", "train/sad/deep"])
def test_folder_that_cannot_be_listed(write_images, monkeypatch, name):
    root = write_images(["train/happy/a.png", "train/sad/deep/b.png"])
    real = os.scandir

    def guarded(path):  # root can read files without permissions
        if Path(path) == root / name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SourceError) as caught:
        open_source(root)
    assert str(caught.value) == f"{root / name} cannot be listed: Permission denied; check its permissions"


def test_bad_images_are_named_and_can_be_skipped(write_images):
    root = write_images(["train/happy/a.png", "train/sad/b.png", "train/sad/z.png"])
    (root / "train/sad/text.jpg").write_text("this is no image")
    shutil.copy(root / "train/sad/b.png", os.fsencode(root) + b"/train/sad/sch\xf6n.png")
    bad = []
    assert [record.label for record in open_source(root).records(bad.append)] == [3, 4, 4]
    assert [(error.where, error.reason) for error in bad] == [
        (rf"{root}/train/sad/sch\xf6n.png", "the file name is not UTF-8; rename it"),
        (
            f"{root}/train/sad/text.jpg",
            "cannot be decoded: it is not an image that can be read; expected a whole image file",
        ),
    ]
    with pytest.raises(PictureError, match="sch"):
        list(open_source(root).records())
