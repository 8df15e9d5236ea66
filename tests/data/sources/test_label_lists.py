"""Tests lists of images and labels, in the formats of RAF-DB, AffectNet, and ExpW, and CSV files."""

import numpy as np
import pytest

from fer_jax.data.decoding import PictureError
from fer_jax.data.sources import classes
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SourceError

# RAF-DB's order: surprise, fear, disgust, happy, sad, angry, neutral.
RAF_DB = [5, 2, 1, 3, 4, 0, 6]
AFFECTNET = [6, 3, 4, 5, 2, 1, 0]
AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)


def affectnet(name, label, box="0,0,48,48"):
    return f"{name},{box},1;2;3;4,{label},-0.5,0.2"


@pytest.fixture
def write(write_images, tmp_path):
    """Returns write(images, name of the list, rows) -> folder with both."""

    def write(images, name, rows, encoding="utf-8"):
        root = write_images(images)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n", encoding=encoding)
        return root

    return write


@pytest.mark.parametrize("ending", ["", "_aligned"])
@pytest.mark.parametrize("give", [".", "EmoLabel/list_patition_label.txt"])
def test_raf_db(write, ending, give):
    names = [f"train_0000{i}" for i in range(1, 6)] + ["test_0001", "test_0002"]
    rows = [f"{name}.jpg {i}" for i, name in enumerate(names, 1)]
    images = [f"Image/aligned/{name}{ending}.jpg" for name in names]
    source = open_source(write(images, "EmoLabel/list_patition_label.txt", rows) / give)
    records = list(source.records())
    assert [record.label for record in records] == RAF_DB
    assert [record.split for record in records] == 5 * ["train"] + 2 * ["test"]
    assert [record.id for record in records] == [f"{name}.jpg" for name in names]
    assert records[1].where == "list_patition_label.txt row 2"
    assert (source.kind, source.total) == ("label_list", 7)
    assert "assumed to be those of RAF-DB: 1 surprise, 2 fear, 3 disgust, 4 happy, 5 sad" in source.notes[0]
    assert source.notes[1].endswith("Image/aligned")


def test_affectnet_has_boxes_and_labels_that_are_no_emotion(write, faces):
    images = {f"Images/{i}/a.png": image for i, image in enumerate(faces(9, shape=(48, 60)))}
    rows = [affectnet(f"{i}/a.png", i, box="40,8,30,30") for i in range(9)]
    root = write(images, "training.csv", [AFFECTNET_HEADER, *rows[:7]])
    (root / "validation.csv").write_text("\n".join([AFFECTNET_HEADER, *rows[7:]]))
    with pytest.raises(SourceError, match="angry; leave out the other labels with --map 7=drop --map 8=drop"):
        open_source(root)
    source = open_source(root, classes.parse(["7=disgust", "8=drop"]))
    records = list(source.records())
    assert [record.label for record in records] == [*AFFECTNET, 1] and source.total == 8
    assert [record.split for record in records] == 7 * ["train"] + ["validation"]
    # A third of the box is outside the image, on the right.
    np.testing.assert_array_equal(records[3].image, images["Images/3/a.png"][8:38, 40:])
    assert "1 images of class 7 taken as disgust (--map 7=disgust)" in source.notes
    assert (
        "those of AffectNet: 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust, 6 angry"
        in source.notes[2]
    )
    source = open_source(root / "validation.csv", classes.parse(["7=drop", "8=sad"]))
    assert [(record.id, record.label) for record in source.records()] == [("8/a.png", 4)]


def test_expw_has_several_faces_in_an_image(write, faces):
    image = faces(1, shape=(60, 80, 3))[0]
    rows = [f"a b{i}.png {i} 10 20 50 40 97.5 {i}" for i in range(7)]  # top left right bottom
    rows.insert(0, "c.png 0 0 0 10 20 99.1 6")
    images = {f"image/origin/a b{i}.png": image for i in range(7)} | {"image/origin/c.png": image}
    source = open_source(write(images, "label/label.lst", rows))
    records = list(source.records())
    assert [record.label for record in records] == [6, *range(7)]
    assert [record.id for record in records][:3] == ["c.png#0", "a b0.png#0", "a b1.png#1"]
    np.testing.assert_array_equal(records[0].image, image[:20, :10])
    np.testing.assert_array_equal(records[1].image, image[10:40, 20:50])
    assert {record.split for record in records} == {None}


@pytest.mark.parametrize(
    ("name", "rows", "encoding", "split"),
    [
        ("labels.csv", [",pth,label,relFCs", "0,x/a.png,anger,1", "1,x/b.png,Happiness,1"], "utf-8", None),
        ("val_labels.csv", ["image;emotion", "x\\a.png;Angry", "x\\b.png;joy"], "utf-8", "validation"),
        ("list.tsv", ["Label\tSet\tFile", "angry\ttest\tx/a.png", "happy\tTest\tx/b.png"], "utf-16", "test"),
        ("train.txt", ["x/a.png angry", "", "x/b.png happy"], "utf-8-sig", "train"),
    ],
)  # fmt: skip
def test_lists_of_any_program(write, name, rows, encoding, split):
    source = open_source(write(["x/a.png", "x/b.png"], name, rows, encoding) / name)
    found = [(record.id, record.label, record.split) for record in source.records()]
    assert found == [("x/a.png", 0, split), ("x/b.png", 3, split)] and source.notes == []


def test_numbers_of_no_known_dataset_need_a_map(write):
    rows = ["image,label", *(f"{i}.png,{i}" for i in range(1, 8))]
    root = write([f"{i}.png" for i in range(1, 8)], "labels.csv", rows)
    message = "map each number with --map 1=EMOTION; if these are RAF-DB's, give --map 1=surprise --map"
    with pytest.raises(SourceError, match=message):
        open_source(root / "labels.csv")
    words = [f"{i}={name}" for i, name in enumerate("sad happy fear angry drop neutral drop".split(), 1)]
    source = open_source(root / "labels.csv", classes.parse(words))
    assert [record.label for record in source.records()] == [4, 3, 2, 0, 6] and source.total == 5
    assert "1 images of class 5 left out (--map 5=drop)" in source.notes


def test_a_map_goes_before_a_datasets_numbering(write):
    rows = [f"train_{i}.png {i}" for i in range(1, 8)]
    root = write([f"train_{i}.png" for i in range(1, 8)], "list_patition_label.txt", rows)
    source = open_source(root, classes.parse(["1=sad", "2=drop"]))
    assert [record.label for record in source.records()] == [4, *RAF_DB[2:]]
    assert source.notes[2].endswith("those of RAF-DB: 3 disgust, 4 happy, 5 sad, 6 angry, 7 neutral")


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("a.csv", "b.png", "missing fields; expected a path and a label"),
        ("a.csv", "b.png,,train", "missing fields"),
        ("a.csv", "c.png,sad,train", "c.png: does not exist"),
        ("a.csv", "b.png,sad,holiday", "the split is 'holiday', expected train, validation or test"),
        ("training.csv", affectnet("b.png", 1, "x,0,9,9"), "the face box is {'left': 'x', .*expected pix"),
        ("training.csv", affectnet("b.png", 1, "0,0,inf,9"), "expected pixels"),
        ("training.csv", affectnet("b.png", 1, "30,30,48,48"), "from 30, 30 to 78, 78, is outside the image"),
        ("training.csv", affectnet("b.png", 1, "0,0,0,9"), "is outside the image of 48 x 48; is the image"),
        ("training.csv", affectnet("b.png", 1, "9,9,-5,9"), "is outside the image of 48 x 48"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_and_can_be_skipped(write, name, row, reason):
    header, good = (AFFECTNET_HEADER, affectnet("a.png", 1))
    if name == "a.csv":
        header, good = "path,label,split", "a.png,happy,train"
    source = open_source(write(["a.png", "b.png"], name, [header, good, row, good]) / name)
    bad = []
    assert [record.label for record in source.records(bad.append)] == [3, 3]
    assert [error.where for error in bad] == [f"{name} row 3"] and source.total == 3
    with pytest.raises(PictureError, match=f"{name} row 3: .*{reason}"):
        list(source.records())


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        (["path,label"], [], "a.csv has no row with a path and a label"),
        (["path,label", "x/b.png,sad"], [], "a.csv: none of its images, such as x/b.png, is in the list's f"),
        (["path,label", "a.png,contempt"], [], "unknown emotion 'contempt'.*--map contempt=disgust labels"),
        (["path,label", "a.png,sad"], ["scorn=drop"], "has no label scorn, which --map names; it has: sad"),
        (["path,emotion name", "a.png,sad"], [], "expected emotion, pixels, and Usage .*, or path and label"),
        (["path,label", 'a.png,"sad', "a.png,sad"], [], "unknown emotion"),
    ],
)
def test_lists_that_cannot_be_used(write, rows, words, message):
    root = write(["a.png"], "a.csv", rows)
    with pytest.raises(SourceError, match=message) as error:
        open_source(root / "a.csv", classes.parse(words))
    assert str(root) in str(error.value)


def test_a_folder_of_classes_may_hold_a_list_of_another_program(write_images):
    root = write_images(["happy/a.png", "sad/b.png"])
    (root / "training.csv").write_text("path,label\nhappy/a.png,sad\n")
    assert [record.label for record in open_source(root).records()] == [3, 4]
