"""Tests the rows of tables and resuming tables."""

import csv

import numpy as np
import pytest
from helpers import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.output import table
from fer_jax.inference.output.table import Table, TableError
from fer_jax.inference.structures import Box, DetectedFrame, Detection, Face, Track

MADE_BY = {"model": "abc", "margin": 1.0}
BOX = Box(1.26, 2, 30, 40)
FACE = Face(Detection(BOX, 0.75, BOX), EMOTIONS, np.array([0.5, 0, 0, 0.25, 0, 0, 0.25]), 0.6)
FACE_ROW = {
    "source": "some/a.png",
    "status": "face",
    "face": 1,
    **{"left": 1.3, "top": 2, "width": 30, "height": 40, "detection_score": 0.75},
    **{"emotion": "angry", "confidence": 0.5, "unsure": True},
    **{f"p_{name}": p for name, p in zip(EMOTIONS, FACE.probabilities, strict=True)},
}
A, B, C = (table.rows(DetectedFrame((9, 9), source=name)) for name in ("a.png", "b.mp4", "c.png"))


def sources(path):
    return [row["source"] for row in rows_of(path)]


def start(path):
    new = Table(path, EMOTIONS, MADE_BY)
    new.start()
    return new


def resume(path):
    return Table(path, EMOTIONS, MADE_BY).resume()


def refuse(number, text):
    def raise_error(*_):
        raise OSError(number, text)

    return raise_error


def test_rows_of_images():
    frame = DetectedFrame((100, 50), source="some/a.png")
    assert table.rows(frame, [FACE]) == [FACE_ROW]
    assert [row["face"] for row in table.rows(frame, [FACE, FACE])] == [1, 2]
    assert table.rows(frame) == [{"source": "some/a.png", "status": "no_face"}]
    (row,) = table.rows(DetectedFrame(source="a.png", error="is broken"))
    assert row == {"source": "a.png", "status": "error", "error": "is broken"}


def test_rows_of_videos():
    frame = DetectedFrame((100, 50), source="some/a.png", frame=7, seconds=0.23333, ends=False)
    track = Track(3, BOX, 0.2, np.array([0.1, 0, 0, 0.9, 0, 0, 0]))
    more = {"frame": 7, "seconds": 0.233, "track": 3, "smoothed_emotion": "happy", "smoothed_confidence": 0.9}
    assert table.rows(frame, [FACE], [track]) == [FACE_ROW | more]
    assert table.rows(DetectedFrame(source="a.mp4")) == []  # its end


def test_a_file_of_rows_has_the_columns_that_are_used():
    found = [*table.rows(DetectedFrame((9, 9), source="a,b.png"), [FACE]), *A]
    first, second = csv.DictReader(table.to_csv(found, EMOTIONS).decode().splitlines())
    assert list(first) == [name for name in table.columns(EMOTIONS) if name in FACE_ROW]
    assert (first["source"], first["p_angry"], second["status"]) == ("a,b.png", "0.5", "no_face")


# Python represents file names that are not UTF-8 with surrogates; other characters cannot occur.
NAMES = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\udcff,\"\n\r'=")).filter(bool)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from([".csv", ".jsonl"]), st.lists(NAMES, min_size=1, unique=True))
def test_what_is_written_is_read_back(tmp_path_factory, ending, names):
    path = tmp_path_factory.mktemp("table") / f"out{ending}"
    new = start(path)
    for name in names:
        new.write(table.rows(DetectedFrame((9, 9), source=name), [FACE]))
    new.write(table.rows(DetectedFrame(source="\n", error="is broken")))
    new.mark()
    *found, last = rows_of(path)
    assert [row["source"] for row in found] == names and last["error"] == "is broken"
    assert list(last) == table.columns(EMOTIONS) and last["emotion"] in ("", None)
    assert float(found[0]["p_angry"]) == 0.5 and str(found[0]["unsure"]) == "True"
    assert resume(path) == ({*names, "\n"}, None)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from([".csv", ".jsonl"]), st.integers(0, 10**6))
def test_a_table_that_is_cut_at_any_byte_has_the_rows_up_to_the_last_mark(tmp_path_factory, ending, cut):
    """The run was killed while writing; a table shorter than the mark was changed by another program."""
    path = tmp_path_factory.mktemp("table") / f"out{ending}"
    new, state = start(path), path.with_name(f"{path.name}.state")
    new.write(A)
    new.write(B, {"source": "b.mp4", "frame": 4})
    new.mark()
    marked, complete = state.read_bytes(), path.read_bytes()
    new.write(C)
    new.mark()
    state.write_bytes(marked)
    path.write_bytes(path.read_bytes()[: cut % (path.stat().st_size + 1)])
    again = Table(path, EMOTIONS, MADE_BY)
    if path.stat().st_size < len(complete):
        with pytest.raises(TableError, match="was modified, and"):
            again.resume()
        return
    assert again.resume() == ({"a.png"}, {"source": "b.mp4", "frame": 4})
    assert path.read_bytes() == complete
    again.write(C)
    again.mark()
    assert sources(path) == ["a.png", "b.mp4", "c.png"]


def test_rows_that_a_run_cannot_be_resumed_after_are_written_and_made_again(tmp_path):
    path = tmp_path / "out.csv"
    new = start(path)
    new.write(A)
    for _ in range(2):
        new.write(B, resumable=False)
        new.mark()
    assert sources(path) == ["a.png", "b.mp4", "b.mp4"]  # nothing is buffered in memory
    again = Table(path, EMOTIONS, MADE_BY)
    assert again.resume() == ({"a.png"}, None) and sources(path) == ["a.png"]
    again.write(B, resumable=False)
    again.mark()
    again.write(C)
    again.mark()
    assert resume(path) == ({"a.png", "b.mp4", "c.png"}, None)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_finished_table_has_no_state_and_can_be_extended(ending, tmp_path):
    path = tmp_path / f"out{ending}"
    new = start(path)
    assert not new.finished
    new.write(A)
    new.finish()
    assert new.finished and [one.name for one in tmp_path.iterdir()] == [path.name]
    again = Table(path, EMOTIONS, MADE_BY)
    assert again.resume() == ({"a.png"}, None) and again.rows == 1
    again.write(C)
    again.finish()
    assert sources(path) == ["a.png", "c.png"]


@pytest.mark.parametrize(("name", "content"), [("a.csv", "precious"), ("a.csv", ""), ("a.jsonl", "[1]\n")])
def test_another_file_is_neither_overwritten_nor_extended(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TableError, match=f"{name} exists: add --resume"):
        start(path)
    with pytest.raises(TableError, match=f"{name} is no table of fer-jax predict"):
        resume(path)
    assert path.read_text() == content


def test_a_table_that_cannot_be_resumed_says_why(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    start(path)
    other = Table(path, EMOTIONS, MADE_BY | {"margin": 1.5})
    with pytest.raises(TableError, match="made with margin 1.0; now it is margin 1.5: choose another file"):
        other.resume()
    with monkeypatch.context() as patch:
        patch.setattr(table.os, "truncate", refuse(13, "Permission denied"))
        message = rf"cannot write to {tmp_path}/out.csv \(Permission denied\); give another --out"
        with pytest.raises(OSError, match=message):
            resume(path)
    path.write_text("source\n")
    with pytest.raises(TableError, match="out.csv was modified, and"):
        resume(path)
    (tmp_path / "out.csv.state").write_text("{}")
    with pytest.raises(TableError, match="out.csv.state cannot be read .* cannot be resumed without it"):
        resume(path)


def test_resuming_nothing_begins_and_another_ending_is_refused(tmp_path):
    assert resume(tmp_path / "new" / "out.jsonl") == (set(), None)
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == b""
    with pytest.raises(TableError, match="--out out.xlsx: expected a file ending in .csv or .jsonl"):
        Table("out.xlsx", EMOTIONS, MADE_BY)


def test_a_full_disk_loses_nothing_that_was_marked(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    new = start(path)
    new.write(A)
    new.mark()
    with monkeypatch.context() as patch:
        patch.setattr(table.os, "fsync", refuse(28, "No space left on device"))
        new.write(B)
        with pytest.raises(OSError, match="No space left"):
            new.mark()
    assert resume(path) == ({"a.png"}, None)
    assert sources(path) == ["a.png"]
