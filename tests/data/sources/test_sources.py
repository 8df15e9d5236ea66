"""Every kind of source is recognised and read as what it is."""

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.sources import folders
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import BadRecordError, SourceError

USAGES = ["Training", "Training", "PublicTest", "PrivateTest"]
SPLITS = ["train", "train", "validation", "test"]
LABELS = [3, 6, 0, 1]


@pytest.mark.parametrize(
    ("name", "header", "kind", "encoding"),
    [
        ("fer2013.csv", ("emotion", "pixels", "Usage"), "fer2013_csv", "utf-8"),
        ("icml_face_data.csv", ("emotion", " Usage", " pixels"), "icml_csv", "utf-8"),
        ("mine.csv", ("emotion", "pixels", "Usage"), "fer2013_csv", "utf-8-sig"),
    ],
)
def test_csv(faces, write_csv, name, header, kind, encoding):
    images = faces(4)
    path = write_csv(images, LABELS, USAGES, name=name, header=header, encoding=encoding)
    source = open_source(path)
    records = list(source.records())
    assert (source.kind, source.total, source.notes) == (kind, 4, [])
    np.testing.assert_array_equal([r.image for r in records], images)
    assert [r.label for r in records] == LABELS
    assert [r.split for r in records] == SPLITS
    assert [r.id for r in records][1:3] == ["Training/000001", "PublicTest/000002"]
    assert records[2].where == f"{name} row 4"


def test_csv_is_found_in_a_folder_and_can_be_read_twice(faces, write_csv, tmp_path):
    write_csv(faces(4), LABELS, USAGES)
    source = open_source(tmp_path)
    assert len(list(source.records())) == len(list(source.records())) == 4


def test_csv_without_usage_has_no_splits_and_says_so(faces, write_csv):
    path = write_csv(faces(2), [0, 1], ["", ""], name="train.csv", header=("emotion", "pixels"))
    source = open_source(path)
    assert [r.split for r in source.records()] == [None, None]
    assert "no Usage column" in source.notes[0]


def test_ids_count_data_rows_also_behind_a_bad_one(faces, write_csv):
    source = open_source(write_csv(faces(4), [3, 9, 0, 1], USAGES))
    bad = []
    records = list(source.records(bad.append))
    assert [r.id for r in records] == ["Training/000000", "PublicTest/000002", "PrivateTest/000003"]
    assert [error.where for error in bad] == ["fer2013.csv row 3"]


def test_kaggle_names_decide_the_split(faces, write_images):
    a, b, c, d = faces(4)
    root = write_images(
        {
            "train/happy/Training_10.png": a,
            "test/happy/PublicTest_11.png": b,
            "test/anger/PrivateTest_12.png": c,
            "train/sad/no_prefix.png": d,
        }
    )
    source = open_source(root)
    assert source.kind == "kaggle_folders"
    found = {r.id: (r.split, r.label) for r in source.records()}
    assert found == {
        "train/happy/Training_10.png": ("train", 3),
        "test/happy/PublicTest_11.png": ("validation", 3),
        "test/anger/PrivateTest_12.png": ("test", 0),
        "train/sad/no_prefix.png": ("train", 4),
    }


def test_kaggle_image_without_prefix_in_test_has_no_known_split(faces, write_images):
    a, b = faces(2)
    root = write_images({"train/sad/Training_1.png": a, "test/sad/2.png": b})
    with pytest.raises(BadRecordError, match=r"test/sad/2\.png: its name has no Training_"):
        list(open_source(root).records())


def test_test_folder_without_prefixes_cannot_be_told_apart(faces, write_images):
    a, b = faces(2)
    source = open_source(write_images({"train/sad/1.png": a, "test/sad/2.png": b}))
    assert source.kind == "split_folders"
    assert "PublicTest and PrivateTest mixed and nothing tells them apart" in source.notes[0]


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
def test_split_folders(faces, write_images, folder, split):
    source = open_source(write_images({f"{folder}/Surprised/x/1.png": faces(1)[0]}))
    (record,) = source.records()
    assert (source.kind, record.split, record.label) == ("split_folders", split, 5)


def test_class_folders_are_read_sorted_and_other_files_counted(faces, write_images):
    a, b, c = faces(3)
    root = write_images({"sadness/b.png": b, "sadness/a.png": a, "Happiness/c.png": c})
    (root / "sadness" / "notes.txt").write_text("")
    (root / "sadness" / ".hidden.png").write_text("")
    (root / "__MACOSX").mkdir()
    source = open_source(root)
    records = list(source.records())
    assert source.kind == "class_folders"
    assert [(r.id, r.label, r.split) for r in records] == [
        ("Happiness/c.png", 3, None),
        ("sadness/a.png", 4, None),
        ("sadness/b.png", 4, None),
    ]
    assert source.notes == ["files that are not images (by their ending) and were not looked at: 1"]


def test_images_outside_the_class_folders_are_counted(faces, write_images):
    a, b, c, d = faces(4)
    root = write_images({"train/sad/a.png": a, "val/sad/b.png": b, "c.png": c, "train/d.png": d})
    (root / "readme.txt").write_text("")
    source = open_source(root)
    assert [r.id for r in source.records()] == ["train/sad/a.png", "val/sad/b.png"]
    assert source.notes == [f"images outside the class folders, left out: 2, such as {root}/c.png"]


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


def test_numbered_folders_are_the_challenge_s_order_only_if_all_seven(faces, write_images):
    images = faces(7)
    root = write_images({f"{i}/a.png": images[i] for i in range(7)}, "all")
    source = open_source(root)
    assert [r.label for r in source.records()] == list(range(7))
    assert "4 sad, 5 surprise, 6 neutral" in source.notes[0]
    with pytest.raises(SourceError, match="numbers are only understood as 0 to 6, all seven"):
        open_source(write_images({f"{i + 1}/a.png": images[i] for i in range(7)}, "from_one"))


def test_unknown_class_is_named(faces, write_images):
    a, b = faces(2)
    root = write_images({"train/happy/1.png": a, "train/contempt/1.png": b})
    with pytest.raises(SourceError, match="unknown emotion 'contempt'; known ones"):
        open_source(root)


def test_unknown_split_is_named(faces, write_images):
    a, b = faces(2)
    root = write_images({"train/happy/1.png": a, "happy/1.png": b})
    with pytest.raises(SourceError, match=r"images/happy is not a split, but beside it train is"):
        open_source(root)


def test_folder_around_the_dataset_is_pointed_out(faces, write_images):
    root = write_images({"archive/train/happy/1.png": faces(1)[0]})
    with pytest.raises(SourceError, match=r"give \S*images/archive as the source"):
        open_source(root)


def test_synthetic_is_a_word():
    source = open_source("synthetic")
    records = list(source.records())
    assert source.kind == "synthetic"
    assert source.total == len(records)
    assert {r.split for r in records} == {"train", "validation", "test"}
    assert len({r.id for r in records}) == len(records)


# --- decoding ---


def test_colour_stays_and_grey_stored_as_colour_becomes_grey(faces, tmp_path):
    colour, grey = faces(1, shape=(20, 30, 3))[0], faces(1, shape=(20, 30))[0]
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(grey).convert("RGB").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(folders.read_image(tmp_path / "colour.png"), colour)
    np.testing.assert_array_equal(folders.read_image(tmp_path / "grey.png"), grey)


def test_palette_alpha_and_sixteen_bit_images(faces, tmp_path):
    grey = faces(1)[0]
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("alpha.png", "palette.gif", "deep.png"):
        np.testing.assert_array_equal(folders.read_image(tmp_path / name), grey, err_msg=name)


def test_images_are_turned_upright(tmp_path):
    image = np.zeros((16, 32), np.uint8)
    image[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(folders.read_image(tmp_path / "turned.png"), np.rot90(image, k=-1))


def test_other_classes_are_mapped_or_left_out_where_the_user_says_so(faces, write_images):
    images = faces(4)
    root = write_images(
        {
            f"{name}/1.png": image
            for name, image in zip(("Contempt", "unknown", "sad", "disgust"), images, strict=True)
        }
    )
    class_map = folders.parse_map(["contempt=disgusted", "unknown=drop"])
    source = open_source(root, class_map)
    found = {record.id: record.label for record in source.records()}
    assert found == {"Contempt/1.png": 1, "disgust/1.png": 1, "sad/1.png": 4} and source.total == 3
    assert "1 images of class contempt taken as disgust (--map contempt=disgust)" in source.notes
    assert "1 images of class unknown left out (--map unknown=drop)" in source.notes


def test_other_classes_are_refused_and_the_option_named(faces, write_images):
    root = write_images(
        {f"{name}/1.png": image for name, image in zip(("contempt", "sad"), faces(2), strict=True)}
    )
    with pytest.raises(SourceError, match="unknown emotion 'contempt'.*--map contempt=drop leaves it out"):
        open_source(root)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["contempt"], "--map contempt: expected CLASS=EMOTION or CLASS=drop"),
        (["=drop"], "--map =drop: expected CLASS=EMOTION"),
        (["contempt=scorn"], "--map contempt=scorn: unknown emotion 'scorn'.*or drop"),
        (["contempt=drop", "Contempt=sad"], "--map Contempt=sad: Contempt was mapped to drop already"),
    ],
)
def test_a_map_that_cannot_be_read(words, expected):
    with pytest.raises(SourceError, match=expected):
        folders.parse_map(words)


def test_a_map_of_what_is_not_there(faces, write_images, write_csv):
    root = write_images({"sad/1.png": faces(1)[0]})
    with pytest.raises(SourceError, match="has no class folder contemt, which --map names; it has: sad"):
        open_source(root, {"contemt": "drop"})
    with pytest.raises(SourceError, match="--map is for folders of classes, and synthetic is none"):
        open_source("synthetic", {"contempt": "drop"})
    with pytest.raises(SourceError, match="--map is for folders of classes"):
        open_source(write_csv(faces(4), [3, 0, 0, 1], ["Training"] * 4), {"contempt": "drop"})


def test_numbers_are_not_understood_because_an_eighth_is_left_out(faces, write_images):
    """AffectNet's 0 to 7 are in another order than FER2013's 0 to 6."""
    root = write_images({f"{i}/1.png": image for i, image in enumerate(faces(8))})
    with pytest.raises(SourceError, match="numbers are only understood.*--map 0=EMOTION"):
        open_source(root, {"7": "drop"})
