"""What the command line names."""

import os

import pytest

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


def names(found):
    return [one.name for one in found]


def test_a_folder_is_searched_at_any_depth_in_a_fixed_order(folder):
    found = inputs.find([str(folder)])
    assert names(found) == ["a.png", "b.JPG", "deep/d.webp", "deep/er/c.mp4"]
    assert [one.path for one in found] == [os.path.join(folder, name) for name in names(found)]
    assert [one.is_video for one in found] == [False, False, False, True]


def test_files_and_patterns_in_the_order_given_each_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert inputs.find(["b.JPG", "./a.png"]) == [Input("b.JPG", "b.JPG"), Input("./a.png", "a.png")]
    assert names(inputs.find(["*.png", "a.png", "deep/**/*.mp4"])) == ["a.png", "c.mp4"]
    assert [one.path for one in inputs.find(["deep/../a.png", "a.png"])] == ["deep/../a.png"]


def test_a_file_is_taken_whatever_its_ending(folder):
    assert names(inputs.find([str(folder / "notes.txt")])) == ["notes.txt"]


def test_a_name_with_brackets_is_a_file_first(folder):
    (folder / "[1].png").touch()
    assert names(inputs.find([str(folder / "[1].png")])) == ["[1].png"]


def test_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert [one.path for one in inputs.find(["~/a.png"])] == [str(folder / "a.png")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nothere.png", "nothere.png does not exist"),
        ("deep/*.gif", "no file matches .*deep/\\*.gif"),
        ("empty", "there is no picture or video in .*empty; expected files ending in .jpg"),
    ],
)
def test_nothing_to_look_at_is_an_error(word, message, folder):
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        inputs.find([str(folder / "a.png"), str(folder / word)])
