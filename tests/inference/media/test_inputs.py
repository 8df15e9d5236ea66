"""Tests finding the files of the command line."""

import collections
import os

import pytest
from PIL import Image

from fer_jax.inference.media import inputs
from fer_jax.inference.media.inputs import Input, InputError


@pytest.fixture
def folder(tmp_path):
    files = ("b.JPG", "a.png", "notes.txt", ".hidden.png", "deep/er/c.mp4", "deep/d.webp", ".cache/e.png")
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def find(*words):
    return inputs.find(list(map(str, words)))[0]


def names(*words):
    return [one.name for one in find(*words)]


def test_a_folder_is_searched_at_any_depth_in_a_fixed_order(folder):
    found = find(folder)
    expected = ["a.png", "b.JPG", "deep/d.webp", "deep/er/c.mp4"]
    assert [(one.name, one.path) for one in found] == [(name, str(folder / name)) for name in expected]
    assert [one.is_video for one in found] == [False, False, False, True]


def test_what_is_skipped_is_counted_by_its_ending(folder):
    for name in ("1.HEIC", "2.heic", "deep/3.heic", "README"):
        (folder / name).touch()
    _, skipped = inputs.find([str(folder), str(folder / "a.png")])
    assert skipped == collections.Counter({".heic": 3, ".txt": 1, "": 1})
    assert inputs.describe(skipped).startswith(
        "; skipped: 3 .heic, 1 without an extension, 1 .txt (pip install"
    )
    assert inputs.describe(collections.Counter()) == ""


def test_what_systems_leave_in_folders_is_neither_found_nor_counted(folder):
    names = ["@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "deep/@eaDir/d.png", "__MACOSX/._a.png", "#recycle/x.png"]
    names += [".thumbnails/x.png", "$RECYCLE.BIN/x.mp4", "._a.png", "Thumbs.db", ".DS_Store", "desktop.ini"]
    names += ["System Volume Information/x.png", "lost+found/x.png"]
    before = inputs.find([str(folder)])
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert inputs.find([str(folder)]) == before
    assert before[1] == collections.Counter({".txt": 1})


def test_animations_are_images_unless_their_frames_are_wanted(tmp_path):
    black, white = Image.new("L", (8, 8)), Image.new("L", (8, 8), 255)
    for name, more in {"a.gif": [white], "b.webp": [white], "c.gif": [], "d.WEBP": []}.items():
        black.save(tmp_path / name, save_all=True, append_images=more)
    (tmp_path / "e.gif").write_text("hello")
    found, _ = inputs.find([str(tmp_path)])
    assert [(one.is_video, one.is_animated) for one in found] == 2 * [(False, True)] + 3 * [(False, False)]
    found, _ = inputs.find([str(tmp_path)], frames=True)
    assert [(one.is_video, one.is_animated) for one in found] == 5 * [(True, False)]


def test_links_are_followed_once_and_never_in_circles(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "f.png").touch()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "twice").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "deep" / "again").symlink_to(folder / "deep")
    assert names(folder) == ["a.png", "b.JPG", "deep/d.webp", "deep/er/c.mp4", "linked/f.png"]


def test_files_and_patterns_in_the_order_given_each_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert find("b.JPG", "./a.png") == [Input("b.JPG", "b.JPG"), Input("./a.png", "a.png")]
    assert names("*.png", "a.png", "deep/**/*.mp4") == ["a.png", "c.mp4"]
    assert [one.path for one in find("deep/../a.png", "a.png")] == ["deep/../a.png"]
    assert find("~/a.png") == [Input(os.path.join(folder, "a.png"), "a.png")]
    assert names("notes.txt") == ["notes.txt"]  # with any extension
    (folder / "[1].png").touch()
    assert names("[1].png") == ["[1].png"]  # a file instead of a pattern


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nothere.png", "nothere.png does not exist"),
        ("deep/*.gif", "no file matches .*deep/\\*.gif"),
        ("empty", "there is no image or video in .*empty; expected files ending in .jpg.*; skipped: 1 .heic"),
    ],
)
def test_words_that_name_nothing_are_errors(word, message, folder):
    (folder / "empty").mkdir()
    (folder / "empty" / "a.heic").touch()
    with pytest.raises(InputError, match=message):
        find(folder / "a.png", folder / word)
