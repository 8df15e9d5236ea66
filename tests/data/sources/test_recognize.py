"""Tests CSV files in the formats of several programs, and the source "synthetic"."""

import builtins

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_jax.data.csv_file import DELIMITERS
from fer_jax.data.decoding import PictureError
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SourceError

USAGES = ["Training", "Training", "PublicTest", "PrivateTest"]
LABELS = [3, 6, 0, 1]
GOOD = " ".join(["7"] * 2304)
# Unusable rows, and the reasons.
BAD_ROWS = {
    f"9,{GOOD},Training": "emotion is '9', expected a number from 0 to 6 or its name (0 angry, 1 disgust",
    f"-1,{GOOD},Training": "emotion is '-1', expected a number from 0 to 6",
    f"{'1' * 5000},{GOOD},Training": "emotion is '1111",
    f"contempt,{GOOD},Training": "emotion is 'contempt', expected a number from 0 to 6",
    f",{GOOD},Training": "emotion is '', expected a number from 0 to 6",
    f"3,{GOOD[:-2]},Training": "2303 pixels, expected 2304 (48 x 48)",
    f"3,{GOOD} 7,Training": "2305 pixels, expected 2304 (48 x 48)",
    f"3,{' '.join(['7'] * 47**2)},Training": "2209 pixels, expected 2304 (48 x 48), as in previous rows",
    "3,,Training": "0 pixels, expected 2304 (48 x 48)",
    f"3,{GOOD[:-1]}x,Training": "pixels contain 'x', expected integers from 0 to 255",
    f"3,{GOOD[:-1]}7.5,Training": "pixels contain '7.5', expected integers from 0 to 255",
    f"3,{GOOD[:-1]}-7,Training": "pixels contain '-7', expected integers from 0 to 255",
    f"3,{GOOD[:-1]}٣,Training": "pixels contain '٣', expected integers from 0 to 255",
    f"3,{GOOD[:-1]}256,Training": "a pixel is 256, expected 0 to 255",
    f"3,{GOOD[:-1]}{'9' * 30},Training": "expected 0 to 255",
    f"3,{GOOD},Holiday": "Usage is 'Holiday', expected Training, PublicTest or PrivateTest",
    f"3,{GOOD}": "2 fields, expected 3",
}


@pytest.mark.parametrize(
    ("name", "header", "kind"),
    [
        ("fer2013.csv", ("emotion", "pixels", "Usage"), "fer2013_csv"),
        ("icml_face_data.csv", ("emotion", " Usage", " pixels"), "icml_csv"),
    ],
)
def test_rows(faces, write_csv, tmp_path, name, header, kind):
    images = faces(4)
    write_csv(images, LABELS, USAGES, name=name, header=header)
    source = open_source(tmp_path)  # recognized by its name
    for records in (list(source.records()), list(source.records())):  # can be read twice
        np.testing.assert_array_equal([r.image for r in records], images)
        assert [r.label for r in records] == LABELS
        assert [r.split for r in records] == ["train", "train", "validation", "test"]
        assert [r.id for r in records][1:3] == ["Training/000001", "PublicTest/000002"]
        assert records[2].where == f"{name} row 4"
    assert (source.kind, source.total, source.notes) == (kind, 4, [])


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    form=st.fixed_dictionaries(
        {
            "delimiter": st.sampled_from(DELIMITERS),
            "lineterminator": st.sampled_from(["\n", "\r", "\r\n"]),
            "quoting": st.sampled_from([0, 1]),
        }
    ),
    side=st.integers(8, 60),
    color=st.booleans(),
    names=st.booleans(),
)
def test_any_form_of_csv_is_read_the_same(faces, write_csv, encoding, form, side, color, names):
    images = faces(4, shape=(side, side, 3) if color else (side, side))
    labels = [EMOTIONS[label].title() for label in LABELS] if names else LABELS
    source = open_source(write_csv(images, labels, USAGES, name="any.csv", encoding=encoding, **form))
    records = list(source.records())
    np.testing.assert_array_equal([r.image for r in records], images)
    assert [r.label for r in records] == LABELS
    assert [r.where for r in records] == [f"any.csv row {row}" for row in range(2, 6)]
    assert source.total == 4


def test_without_usage_there_are_no_splits_and_a_note_says_so(faces, write_csv):
    source = open_source(write_csv(faces(2), [0, 1], ["", ""], header=("emotion", "pixels")))
    assert [r.split for r in source.records()] == [None, None]
    assert "no Usage column" in source.notes[0]


def test_a_header_in_quotes_after_blanks(tmp_path):
    (tmp_path / "fer2013.csv").write_text(f'"emotion", "pixels","Usage"\n"3","{GOOD}","Training"\n')
    (record,) = open_source(tmp_path).records()
    assert (record.label, record.split) == (3, "train")


def test_each_bad_row_is_named_with_its_reason_and_can_be_skipped(tmp_path):
    rows = [f"{i % 7},{GOOD},Training" for i in range(len(BAD_ROWS) + 1)]
    lines = ["emotion,pixels,Usage", rows[0]]
    for bad, good in zip(BAD_ROWS, rows[1:], strict=True):
        lines += [bad, good]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines), encoding="utf-8")
    found = []
    records = list(open_source(tmp_path).records(found.append))
    assert [record.label for record in records] == [i % 7 for i in range(len(rows))]
    # IDs count bad rows, too, as in FER+.
    assert [record.id for record in records] == [f"Training/{2 * i:06d}" for i in range(len(rows))]
    for number, (error, reason) in enumerate(zip(found, BAD_ROWS.values(), strict=True)):
        assert error.where == f"fer2013.csv row {2 * number + 3}"
        assert reason in error.reason
    with pytest.raises(PictureError, match="fer2013.csv row 3: emotion is '9'"):
        list(open_source(tmp_path).records())


def test_a_first_row_of_no_square(tmp_path):
    (tmp_path / "fer2013.csv").write_text(f"emotion,pixels\n3,{GOOD} 7\n")
    with pytest.raises(PictureError, match="2305 pixels, expected a square of at least 64, such as 2304"):
        list(open_source(tmp_path).records())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "label,pixels,Usage\n", "row 1: the header has no column emotion, it reads 'label,pixels"),
        ("a.csv", "", "the header has no column emotion and no column pixels, it reads ''"),
        ("a.zip", "PK", "a.zip is not a .csv, .tsv, .txt, .lst or .parquet file"),
        ("a.csv", f'emotion,pixels\n3,{GOOD}\n3,"{" " * 2**24}\n', "a.csv, row 3: not CSV .*unclosed quote"),
    ],
)
def test_files_that_are_no_such_csv(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        list(open_source(tmp_path / name).records())


def test_a_csv_that_cannot_be_read_or_no_longer(faces, write_csv, monkeypatch):
    path = write_csv(faces(1), [3], ["Training"])
    source, real = open_source(path), builtins.open

    def deny(file, *args, **kwargs):  # root can read files without permissions
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", deny)
    for read in (lambda: list(source.records()), lambda: open_source(path)):
        with pytest.raises(SourceError, match=r"fer2013\.csv cannot be read: Permission denied"):
            read()


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path / "no" / "such.csv")
    assert f"{tmp_path}/no/such.csv does not exist ({tmp_path} does); give" in str(caught.value)


def test_synthetic_is_a_word():
    source = open_source("synthetic")
    records = list(source.records())
    assert source.kind == "synthetic"
    assert source.total == len(records)
    assert {r.split for r in records} == {"train", "validation", "test"}
    assert len({r.id for r in records}) == len(records)
