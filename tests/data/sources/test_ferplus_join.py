"""Tests joining FER+ votes by row and by pixels, and datasets with votes."""

import csv

import numpy as np
import pytest
from helpers import encode, rows_of
from PIL import Image

from fer_jax.commands import prepare
from fer_jax.data import decoding, ferplus
from fer_jax.data.dataset import read
from fer_jax.data.dataset.build import build
from fer_jax.data.dataset.read import DatasetError
from fer_jax.data.sources import ferplus_join, synthetic
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SourceError
from fer_jax.data.splits import clean_train

USAGES = ["Training", "Training", "PublicTest", "PublicTest"]
LABELS = [3, 0, 6, 2]
VOTES = np.array(
    [
        [0, 8, 1, 0, 0, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 7, 0, 0, 2, 0, 0],
        [0] * 9 + [10],
        [0, 0, 3, 0, 0, 0, 6, 0, 1, 0],
    ]
)


@pytest.fixture
def write_votes(tmp_path):
    """Returns write(usages, votes) -> path; as in Microsoft's file, rows of only "NF" have no name."""

    def write(usages, votes, *, encoding="utf-8", columns=ferplus.COLUMNS, **form):
        path = tmp_path / "fer2013new.csv"
        with open(path, "w", newline="", encoding=encoding) as file:
            writer = csv.writer(file, **form)
            writer.writerow(["Usage", "Image name", *columns])
            for index, (usage, row) in enumerate(zip(usages, votes, strict=True)):
                writer.writerow([usage, "" if row[9] == 10 else f"fer{index:07d}.png", *row])
        return path

    return write


def joined(source, votes, pixels=None, on_bad=None):
    """Returns {id: votes} and the notes."""
    source = ferplus_join.join(open_source(source), votes, pixels)
    return {record.id: record.votes for record in source.records(on_bad)}, source.notes


# --- by row ---


def test_by_row(faces, write_csv, write_votes):
    found, notes = joined(write_csv(faces(4), LABELS, USAGES), write_votes(USAGES, VOTES))
    np.testing.assert_array_equal(list(found.values()), VOTES)
    assert notes == ["FER+ votes of fer2013new.csv joined by row"]


def test_missing_last_splits_are_fine(faces, write_csv, write_votes):
    found, _ = joined(write_csv(faces(2), LABELS[:2], USAGES[:2]), write_votes(USAGES, VOTES))
    np.testing.assert_array_equal(list(found.values()), VOTES[:2])


def test_a_bad_row_keeps_the_others_in_step(faces, write_csv, write_votes):
    bad = []
    found, _ = joined(
        write_csv(faces(4), [3, 9, 6, 2], USAGES), write_votes(USAGES, VOTES), on_bad=bad.append
    )
    assert [error.where for error in bad] == ["fer2013.csv row 3"]
    np.testing.assert_array_equal(list(found.values()), VOTES[[0, 2, 3]])


@pytest.mark.parametrize(
    "rows, usages, message",
    [
        (
            4,
            ["Training"] + ["PublicTest"] * 3,
            r"fer2013.csv row 3 is in train, but fer2013new.csv row 3 in v",
        ),
        (3, USAGES, r"fer2013.csv ends where fer2013new.csv row 5 continues with the same Usage"),
        (4, USAGES[:3], r"more rows than .*fer2013new.csv, which ends with row 4"),
    ],
)
def test_rows_that_do_not_fit(faces, write_csv, write_votes, rows, usages, message):
    with pytest.raises(SourceError, match=message):
        joined(
            write_csv(faces(rows), LABELS[:rows], USAGES[:rows]), write_votes(usages, VOTES[: len(usages)])
        )


def test_rows_in_another_order_are_found_out(faces, write_csv, write_votes):
    labels = np.random.default_rng(0).integers(0, 7, 120)
    columns = [4, 5, 6, 1, 3, 2, 0]  # of the classes
    votes = 10 * np.eye(10, dtype=int)[[columns[label] for label in labels]]
    source = write_csv(faces(120), labels, ["Training"] * 120)
    joined(source, write_votes(["Training"] * 120, votes))
    with pytest.raises(SourceError, match="do not match: their emotions agree for [12]?[0-9]% of"):
        joined(source, write_votes(["Training"] * 120, np.roll(votes, 1, axis=0)))


def test_a_csv_without_usage_needs_pixels(faces, write_csv, write_votes):
    source = write_csv(faces(2), [0, 1], ["", ""], header=("emotion", "pixels"))
    with pytest.raises(SourceError, match="fer2013.csv row 2 has no Usage .*--ferplus_pixels"):
        joined(source, write_votes(USAGES, VOTES))


# --- the file of votes ---


@pytest.mark.parametrize(
    "text, message",
    [
        ("Usage,Image name,neutral\n", "row 1: the header has no column happiness, surprise"),
        ("{header}Training,a,1,2\n", "row 2: 4 fields, expected 12"),
        ("{header}Training,a,1,2,0,0,0,0,0,0,0,x\n", "row 2: NF is 'x', expected a number"),
        ("{header}Training,a,-1,2,0,0,0,0,0,0,0,0\n", "row 2: neutral is '-1', expected a number"),
        ("{header}\nHoliday,a,1,2,0,0,0,0,0,0,0,0\n", "row 3: Usage is 'Holiday', expected Training"),
        ('{header}Training,"' + "a" * 2**24 + "\n", "row 2: not CSV"),
        ("{header}", "has a header, but no votes"),
        ("", "row 1: the header has no column usage"),
    ],
)
def test_a_bad_votes_file(tmp_path, text, message):
    header = ",".join(["Usage", "Image name", *ferplus.COLUMNS]) + "\n"
    (tmp_path / "votes.csv").write_text(text.replace("{header}", header))
    with pytest.raises(SourceError, match=message):
        ferplus_join.read_votes(tmp_path / "votes.csv")


@pytest.mark.parametrize("encoding, delimiter", [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t")])
def test_columns_go_by_name_in_any_form(write_votes, encoding, delimiter):
    form = {"columns": ferplus.COLUMNS[::-1], "encoding": encoding, "delimiter": delimiter}
    votes = ferplus_join.read_votes(write_votes(USAGES, VOTES[:, ::-1], **form))
    np.testing.assert_array_equal(votes.counts, VOTES)


def test_no_votes_file(tmp_path):
    with pytest.raises(SourceError, match="nothing.csv cannot be read: No such file"):
        ferplus_join.read_votes(tmp_path / "nothing.csv")


# --- by pixels ---


def jpeg(image):
    return decoding.read(encode(image, "JPEG", quality=90))


@pytest.fixture
def drawn():
    """Returns smooth faces uint8 [14, 48, 48], two per class; JPEG would distort random pixels."""
    return synthetic.generate(2, 0, "train")[0][..., 0]


@pytest.fixture
def reference(drawn, write_csv, write_votes):
    """Returns (fer2013.csv, fer2013new.csv, votes); images 1 and 2, and 3 and 4, are duplicates."""
    images = drawn[[0, 1, 1, 2, 2, 3]]
    labels = [0, 1, 1, 2, 4, 5]
    votes = 10 * np.eye(10, dtype=int)[[4, 5, 5, 6, 3, 2]]
    usages = ["Training"] * 5 + ["PublicTest"]
    return write_csv(images, labels, usages), write_votes(usages, votes), votes


def test_by_pixels(drawn, reference, write_images):
    pixels, csv_of_votes, votes = reference
    large = np.asarray(Image.fromarray(drawn[0]).resize((96, 96), Image.Resampling.BILINEAR))
    folder = write_images(
        {
            "train/angry/a.png": drawn[0],  # the same pixels
            "train/disgust/b.png": jpeg(drawn[1]),  # matches two rows with the same votes
            "train/fear/c.png": drawn[2],  # two rows with different votes, resolved by the label
            "train/sad/d.png": jpeg(drawn[2]),
            "train/happy/e.png": drawn[2],  # ... or not
            "train/surprise/f.png": drawn[9],  # not in the CSV
            "train/angry/g.png": np.stack([large] * 3, axis=-1),
            "test/surprise/h.png": jpeg(drawn[3]),
        }
    )
    joint, notes = joined(folder, csv_of_votes, pixels)
    assert notes[-1] == (
        "FER+ votes of fer2013new.csv joined by the pixels in fer2013.csv: 2 images by identical pixels, 4 "
        "by a correlation of at least 0.97; no votes for 1 images that are not in it, and for 1 that match "
        "rows with different votes"
    )
    found = {name.split("/")[-1][0]: row for name, row in joint.items()}
    for name, row in dict(a=0, b=1, c=3, d=4, g=0, h=5).items():
        np.testing.assert_array_equal(found[name], votes[row], err_msg=name)
    assert not found["e"].any() and not found["f"].any()


def test_kaggles_names_tell_the_split(drawn, reference, write_images):
    """An image of PrivateTest does not get the votes of its duplicate in Training."""
    pixels, csv_of_votes, votes = reference
    files = {
        "train/angry/Training_1.jpg": drawn[0],
        "test/angry/PrivateTest_2.png": drawn[0],
        "test/surprise/PublicTest_3.jpg": drawn[3],
    }
    found, _ = joined(write_images(files), csv_of_votes, pixels)
    np.testing.assert_array_equal([found[name] for name in files], [votes[0], [0] * 10, votes[5]])


def test_what_cannot_be_joined_by_pixels(reference, write_images, tmp_path):
    pixels, csv_of_votes, _ = reference
    folder = write_images([f"train/happy/{i}.png" for i in range(3)])
    with pytest.raises(SourceError, match="has no rows .*--ferplus_pixels fer2013.csv"):
        joined(folder, csv_of_votes)
    with pytest.raises(SourceError, match="no image of .* is in .*fer2013.csv"):
        joined(folder, csv_of_votes, pixels)
    with pytest.raises(SourceError, match="is not the challenge's fer2013.csv"):
        joined(folder, csv_of_votes, folder)
    with pytest.raises(DatasetError, match="--ferplus_pixels needs --ferplus"):
        build(folder, tmp_path / "data", ferplus_pixels=pixels)


# --- the dataset ---


def test_votes_are_in_the_dataset_and_part_of_its_hashes(faces, write_csv, write_votes, tmp_path):
    images = faces(4)
    source = write_csv(images, LABELS, USAGES)

    def built(name, **options):
        return build(source, tmp_path / name, **options)

    plain = built("plain")
    # As in versions without votes, so that hashes of existing datasets stay the same.
    assert plain["content_hash"] == "b2126dabd04bedab329332ea2e441f40e3cf7b0a0393bcdd39f784fe29f55757"
    assert plain["splits"]["train"]["order_hash"].startswith("0587a708ebe938d5")
    assert plain["annotations"] == []
    assert read.load(tmp_path / "plain", "train").votes is None
    voted = built("data", ferplus_csv=write_votes(USAGES, VOTES))
    assert voted["annotations"] == ["ferplus"]
    other = built("other", ferplus_csv=write_votes(USAGES, VOTES[[1, 0, 2, 3]]))
    assert len({m["content_hash"] for m in (plain, voted, other)}) == 3
    assert len({m["splits"]["train"]["order_hash"] for m in (plain, voted, other)}) == 3
    # The images and labels are the same.
    assert len({m["splits"]["train"]["hash"] for m in (plain, voted, other)}) == 1
    with pytest.raises(DatasetError, match="contains another dataset"):
        built("plain", ferplus_csv=write_votes(USAGES, VOTES))
    for split, mine, kept_labels in (("train", slice(0, 2), [3, 0]), ("validation", slice(2, 4), [2])):
        for max_bytes in (2**30, 0):  # in memory, streamed
            found = read.load(tmp_path / "data", split, max_bytes=max_bytes)
            np.testing.assert_array_equal(found.votes, VOTES[mine])
            assert found.votes.dtype == np.int32
            np.testing.assert_array_equal(found.labels, LABELS[mine])
            np.testing.assert_array_equal(found.take([1]).votes, VOTES[mine][1:])
            kept = ferplus.relabel(found, "ferplus_majority", 8)
            assert kept.labels.tolist() == kept_labels
            np.testing.assert_array_equal(kept.images[:][..., 0], images[mine][-len(kept_labels) :])


def test_merged_duplicates_have_all_votes_and_a_streamed_split_stays_on_disk(
    faces, write_csv, write_votes, tmp_path
):
    images = faces(4)
    images[1] = images[0]
    images[3] = 77
    usages = ["Training"] * 4
    source, votes = write_csv(images, LABELS, usages), write_votes(usages, VOTES)
    build(source, tmp_path / "data", ferplus_csv=votes, validation_fraction=0, test_fraction=0)
    for max_bytes in (2**30, 0):
        train = read.load(tmp_path / "data", "train", max_bytes=max_bytes)
        clean, counts = clean_train(train, drop_blank=True, merge_duplicates=True)
        assert counts == {"blank": 1, "twin": 1}
        assert isinstance(clean.images, np.ndarray) == bool(max_bytes)
        for index in (slice(None), [-1, 0]):
            np.testing.assert_array_equal(clean.images[index][..., 0], images[[0, 2]][index])
        np.testing.assert_array_equal(clean.votes, [VOTES[0] + VOTES[1], VOTES[2]])
        assert clean.ids == ["Training/000000", "Training/000002"]


def test_the_command(faces, write_csv, write_votes, tmp_path, capsys):
    source, votes = write_csv(faces(4), LABELS, USAGES), write_votes(USAGES, VOTES)
    out = tmp_path / "data"
    command = ["--source", str(source), "--ferplus", str(votes), "--out", str(out)]
    assert prepare.main(command) == 0
    printed = capsys.readouterr().out
    assert "FER+ votes of fer2013new.csv joined by row" in printed
    assert f"--config configs/ferplus.py --config.data.dir={out}" in printed
    write_votes(USAGES[:3], VOTES[:3])
    assert prepare.main([*command, "--overwrite"]) == 2
    assert "which ends with row 4" in capsys.readouterr().err


def test_real_images_by_pixels(shared_dir, write_csv, write_votes, write_images, tmp_path):
    """Nearly all images of the first sheet, as JPEG with quality 75, are matched with their rows."""
    sheet = np.asarray(Image.open(sorted((shared_dir / "fer2013" / "sheets").glob("*.png"))[0]))
    images = sheet.reshape(32, 48, 32, 48).swapaxes(1, 2).reshape(-1, 48, 48)
    rows = rows_of(shared_dir / "fer2013" / "labels.csv")[: len(images)]
    votes = np.array([[int(row[name]) for name in ferplus.COLUMNS] for row in rows])
    labels, usages = [int(row["emotion"]) for row in rows], [row["Usage"] for row in rows]
    pixels = write_csv(images, labels, usages)
    files = {f"happy/{i:04d}.jpg": image for i, image in enumerate(images)}
    source = ferplus_join.join(open_source(write_images(files)), write_votes(usages, votes), pixels)
    found = np.stack([record.votes for record in source.records()])
    missing = ~found.any(axis=1)
    np.testing.assert_array_equal(found[~missing], votes[~missing])
    assert missing.sum() <= 10
