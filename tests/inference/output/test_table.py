"""Tables: their rows, and going on with them."""

import csv
import json

import numpy as np
import pytest

from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.media.inputs import Input
from fer_jax.inference.media.stream import DetectedFrame
from fer_jax.inference.media.tracking import Track
from fer_jax.inference.output import table
from fer_jax.inference.output.table import Table, TableError
from fer_jax.inference.structures import Box, Detection, Face

MADE_BY = {"model": "abc", "margin": 1.0}
BOX = Box(1.26, 2, 30, 40)
FACE = Face(Detection(BOX, 0.75, BOX), EMOTIONS, np.array([0.5, 0, 0, 0.25, 0, 0, 0.25]), 0.6)
SOURCE = Input("some/a.png", "a.png")


def read(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def open_new(path):
    new = Table(path, EMOTIONS, MADE_BY)
    new.start()
    return new


def test_rows_of_pictures():
    seen = DetectedFrame(SOURCE, (100, 50))
    (row,) = table.rows(seen, [FACE], [])
    assert row == {
        "source": "some/a.png",
        "frame": None,
        "seconds": None,
        "status": "face",
        "face": 1,
        **{"left": 1.3, "top": 2, "width": 30, "height": 40, "detection_score": 0.75},
        **{"emotion": "angry", "confidence": 0.5, "unsure": True},
        **{f"p_{name}": p for name, p in zip(EMOTIONS, FACE.probabilities, strict=True)},
    }
    assert [row["face"] for row in table.rows(seen, [FACE, FACE], [])] == [1, 2]
    (row,) = table.rows(seen, [], [])
    assert row == {"source": "some/a.png", "frame": None, "seconds": None, "status": "no_face"}


def test_rows_of_videos():
    seen = DetectedFrame(SOURCE, (100, 50), frame=7, seconds=0.23333, ends=False)
    track = Track(3, BOX, 0.2, np.array([0.1, 0, 0, 0.9, 0, 0, 0]))
    (row,) = table.rows(seen, [FACE], [track])
    assert (row["frame"], row["seconds"], row["track"]) == (7, 0.233, 3)
    assert (row["emotion"], row["smoothed_emotion"], row["smoothed_confidence"]) == ("angry", "happy", 0.9)
    assert table.rows(DetectedFrame(SOURCE), [], []) == []  # its end
    (row,) = table.rows(DetectedFrame(SOURCE, error="is broken"), [], [])
    assert (row["status"], row["error"]) == ("error", "is broken")


@pytest.mark.parametrize("ending", (".csv", ".jsonl"))
def test_what_is_written_is_read_back(ending, tmp_path):
    odd = 'quoted "name", with comma\nand \udcff.png'  # a name that is no UTF-8, as Python has it
    path = tmp_path / f"out{ending}"
    new = open_new(path)
    new.write(table.rows(DetectedFrame(Input(odd, odd), (9, 9)), [FACE], []))
    new.write(table.rows(DetectedFrame(SOURCE, error="is broken"), [], []))
    new.mark()
    first, second = read(path)
    assert list(first) == table.columns(EMOTIONS)
    assert first["source"] == odd and second["error"] == "is broken"
    assert float(first["p_angry"]) == 0.5 and str(first["unsure"]) == "True"
    assert second["emotion"] in ("", None)
    assert Table(path, EMOTIONS, MADE_BY).resume() == ({odd, "some/a.png"}, None)


def test_rows_after_the_last_mark_are_cut_off_and_made_anew(tmp_path):
    path = tmp_path / "out.csv"
    new = open_new(path)
    new.write(table.rows(SEEN_A, [], []))
    new.write(table.rows(SEEN_B, [], []), {"source": "b.mp4", "frame": 4})
    new.mark()
    whole = path.read_bytes()
    with open(path, "ab") as file:  # a run that was killed while it wrote
        file.write(b"b.mp4,5,0.5,fa")
    again = Table(path, EMOTIONS, MADE_BY)
    assert again.resume() == ({"a.png"}, {"source": "b.mp4", "frame": 4})
    assert path.read_bytes() == whole
    again.write(table.rows(SEEN_C, [], []))
    again.mark()
    assert [row["source"] for row in read(path)] == ["a.png", "b.mp4", "c.png"]


def test_rows_that_cannot_be_gone_on_after_are_written_and_made_anew(tmp_path):
    path = tmp_path / "out.csv"
    new = open_new(path)
    new.write(table.rows(SEEN_A, [], []))
    new.write(table.rows(SEEN_B, [], []), whole=False)
    new.mark()
    assert [row["source"] for row in read(path)] == ["a.png", "b.mp4"]  # nothing waits in memory
    new.write(table.rows(SEEN_B, [], []), whole=False)
    new.mark()
    again = Table(path, EMOTIONS, MADE_BY)
    assert again.resume() == ({"a.png"}, None)
    assert [row["source"] for row in read(path)] == ["a.png"]
    new = Table(path, EMOTIONS, MADE_BY)
    new.resume()
    new.write(table.rows(SEEN_B, [], []), whole=False)
    new.mark()
    new.write(table.rows(SEEN_C, [], []))
    new.mark()
    assert Table(path, EMOTIONS, MADE_BY).resume() == ({"a.png", "b.mp4", "c.png"}, None)


def test_a_table_that_was_changed_since_is_not_gone_on_with(tmp_path):
    path = tmp_path / "out.csv"
    open_new(path)
    path.write_text("source\n")
    with pytest.raises(TableError, match="out.csv was changed since it was written"):
        Table(path, EMOTIONS, MADE_BY).resume()


SEEN_A, SEEN_B, SEEN_C = (DetectedFrame(Input(name, name), (9, 9)) for name in ("a.png", "b.mp4", "c.png"))


def test_a_table_that_cannot_be_gone_on_with_for_its_rights_says_so(tmp_path, monkeypatch):
    open_new(tmp_path / "out.csv")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(table.os, "truncate", refuse)
    message = rf"cannot write to {tmp_path}/out.csv \(Permission denied\); give another --out"
    with pytest.raises(OSError, match=message):
        Table(tmp_path / "out.csv", EMOTIONS, MADE_BY).resume()


def test_a_table_that_is_there_is_not_written_over(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("precious")
    with pytest.raises(TableError, match="out.csv exists: go on with it by --resume"):
        open_new(path)
    assert path.read_text() == "precious"
    with pytest.raises(TableError, match="out.csv.state cannot be read .* cannot be gone on with"):
        Table(path, EMOTIONS, MADE_BY).resume()
    assert path.read_text() == "precious"


def test_going_on_with_nothing_begins(tmp_path):
    assert Table(tmp_path / "new" / "out.jsonl", EMOTIONS, MADE_BY).resume() == (set(), None)
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == b""


def test_rows_of_another_make_are_not_added(tmp_path):
    open_new(tmp_path / "out.csv")
    other = Table(tmp_path / "out.csv", EMOTIONS, MADE_BY | {"margin": 1.5})
    with pytest.raises(TableError, match="made with margin 1.0; now it is margin 1.5: name another file"):
        other.resume()


def test_another_ending_is_refused():
    with pytest.raises(TableError, match="--out out.xlsx: expected a file ending in .csv or .jsonl"):
        Table("out.xlsx", EMOTIONS, MADE_BY)


def test_a_full_disk_loses_nothing_that_was_marked(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    new = open_new(path)
    new.write(table.rows(SEEN_A, [], []))
    new.mark()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(table.os, "fsync", refuse)
        new.write(table.rows(SEEN_B, [], []))
        with pytest.raises(OSError, match="No space left"):
            new.mark()
    assert Table(path, EMOTIONS, MADE_BY).resume() == ({"a.png"}, None)
    assert [row["source"] for row in read(path)] == ["a.png"]
