"""The command line over pictures, folders and videos."""

import contextlib
import csv
import json
import sys

import numpy as np
import pytest
from helpers import ROOT, run_python
from PIL import Image
from tqdm import tqdm

from fer_jax.commands import predict
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.media import video
from fer_jax.inference.output.annotations import Annotations
from fer_jax.inference.predictor import Predictor
from fer_jax.loaded_model import LoadedModel

sys.path.insert(0, str(ROOT / "tests" / "inference"))
from clips import level, steps, write_clip  # noqa: E402


class Stopped(Exception):
    """A run that ends before it is done."""


@pytest.fixture(scope="module", autouse=True)
def one_predictor(tiny_run):
    """Loads the tiny network once for all runs in this process, as compiling it takes longer than they do."""
    loaded = {}
    load = Predictor.load.__func__

    def load_once(cls, source, detector="yunet", **options):
        key = (str(source), detector, *map(str, options.values()))
        if key not in loaded:
            loaded[key] = load(cls, source, detector, **options | {"batch_sizes": (4,)})
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "load", classmethod(load_once))
        yield


@pytest.fixture
def folder(tmp_path, tiny_data):
    """Three faces, one broken file among them, and a clip of 12 frames."""
    images = read.load(tiny_data, "validation").images
    root = tmp_path / "in"
    (root / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "c.png", "more/d.png")):
        Image.fromarray(images[i, ..., 0]).save(root / name)
    (root / "b.png").write_text("hello")
    write_clip(root / "more" / "e.mp4", steps(12), rate=10)
    return root


def run(tiny_run, *arguments):
    return predict.main([*map(str, arguments), "--model", str(tiny_run), "--detector", "whole"])


@contextlib.contextmanager
def stopping_after(count, monkeypatch):
    """Within it a run ends when more than so many batches are to be classified."""
    classify, left = Predictor.classify, [count]

    def stop(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        return classify(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "classify", stop)
        yield


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def test_a_table_has_a_row_for_every_picture_frame_and_error(folder, tiny_run, tiny_data, capsys):
    assert run(tiny_run, folder, "--out", folder / "out.csv") == 1
    found = rows(folder / "out.csv")
    names = [row["source"].removeprefix(f"{folder}/") for row in found]
    assert names == ["a.png", "b.png", "c.png", "more/d.png"] + 12 * ["more/e.mp4"]
    assert [row["status"] for row in found] == ["face", "error"] + 14 * ["face"]
    assert "cannot be decoded" in found[1]["error"]
    expected = LoadedModel(tiny_run).predict(read.load(tiny_data, "validation").images[:3], progress=False)
    for row, probabilities in zip([found[0], found[2], found[3]], expected, strict=True):
        written = [float(row[f"p_{name}"]) for name in EMOTIONS]
        np.testing.assert_allclose(written, probabilities, atol=2e-6)
        assert row["emotion"] == EMOTIONS[probabilities.argmax()]
        assert (row["frame"], row["track"], row["smoothed_emotion"]) == ("", "", "")
    frames = found[4:]
    assert [int(row["frame"]) for row in frames] == list(range(12))
    assert [float(row["seconds"]) for row in frames] == [i / 10 for i in range(12)]
    assert {row["track"] for row in frames} == {"1"}
    output = capsys.readouterr().out
    assert "15 pictures, 15 faces; 1 file could not be read -> " in output


def test_smoothed_probabilities_follow_with_a_memory_of_half_a_second(tmp_path, tiny_run):
    images = steps(2) * 3
    path = write_clip(tmp_path / "clip.mkv", images, rate=4)
    assert run(tiny_run, path, "--out", tmp_path / "out.jsonl") == 0
    found = rows(tmp_path / "out.jsonl")
    seen = np.array([[row[f"p_{name}"] for name in EMOTIONS] for row in found])
    smooth = seen[0]
    for row, now in zip(found[1:], seen[1:], strict=True):
        smooth = np.exp(-0.5) * smooth + (1 - np.exp(-0.5)) * now
        assert row["smoothed_confidence"] == pytest.approx(smooth.max(), abs=2e-6)
        assert row["smoothed_emotion"] == EMOTIONS[smooth.argmax()]


def test_one_frame_a_period(folder, tiny_run):
    assert run(tiny_run, folder / "more" / "e.mp4", "--every", "0.4", "--out", folder / "out.csv") == 0
    assert [row["frame"] for row in rows(folder / "out.csv")] == ["0", "4", "8"]


@pytest.mark.parametrize("ending", (".csv", ".jsonl"))
@pytest.mark.parametrize("classified", (0, 1, 2, 3, 4))
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_table(
    classified, ending, folder, tiny_run, monkeypatch
):
    """Four faces are classified at a time: before, between and in the files."""
    monkeypatch.setattr(predict, "_MARK_EVERY", 0.0)
    whole, parts = folder / f"whole{ending}", folder / f"parts{ending}"
    run(tiny_run, folder, "--out", whole)
    with stopping_after(classified, monkeypatch):
        if classified < 4:
            with pytest.raises(Stopped):
                run(tiny_run, folder, "--out", parts)
        else:
            run(tiny_run, folder, "--out", parts)
    kept = parts.read_bytes()
    assert whole.read_bytes().startswith(kept) and (len(kept) > 300) == (classified > 0)
    run(tiny_run, folder, "--out", parts, "--resume")
    assert parts.read_bytes() == whole.read_bytes()


def test_going_on_adds_what_is_new(folder, tiny_run):
    out = folder.parent / "out.csv"
    run(tiny_run, folder, "--out", out)
    before = out.read_text()
    Image.new("L", (48, 48)).save(folder / "0.png")
    assert run(tiny_run, folder, "--out", out, "--resume") == 0
    assert out.read_text().startswith(before)
    assert [row["source"] for row in rows(out)][16:] == [str(folder / "0.png")]


def test_annotated_copies_lie_as_their_originals_do(folder, tiny_run):
    assert run(tiny_run, folder, folder / "more" / "d.png", "--annotate", folder.parent / "drawn") == 1
    drawn = folder.parent / "drawn"
    found = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*"))
    assert found == ["a.jpg", "c.jpg", "more/d.jpg", "more/e.mp4"]
    with Image.open(drawn / "a.jpg") as image:
        assert image.size == (48, 48) and image.mode == "RGB"
    frames = list(video.read_frames(drawn / "more" / "e.mp4"))
    assert [round(frame.seconds, 2) for frame in frames] == [i / 10 for i in range(12)]
    assert [level(frame.image) for frame in frames][0] == 0 and frames[0].image.shape == (48, 64, 3)


def test_copies_of_one_name_are_kept_apart(folder, tiny_run):
    drawn = folder.parent / "drawn"
    (folder / "other").mkdir()
    Image.new("RGB", (60, 30)).save(folder / "other" / "a.png")
    assert run(tiny_run, folder / "a.png", folder / "other" / "a.png", "--annotate", drawn) == 0
    sizes = {path.name: Image.open(path).size for path in drawn.iterdir()}
    assert sizes == {"a.jpg": (48, 48), "a_2.jpg": (60, 30)}


def test_a_stopped_run_leaves_no_half_of_an_annotated_video_and_does_it_again(folder, tiny_run, monkeypatch):
    clip, drawn, out = folder / "more" / "e.mp4", folder.parent / "drawn", folder.parent / "out.csv"
    monkeypatch.setattr(predict, "_MARK_EVERY", 0.0)
    with stopping_after(2, monkeypatch), pytest.raises(Stopped):
        run(tiny_run, clip, "--out", out, "--annotate", drawn)
    assert list(drawn.iterdir()) == [] and len(rows(out)) == 8  # which are made again
    assert run(tiny_run, clip, "--out", out, "--annotate", drawn, "--resume") == 0
    assert len(rows(out)) == 12 and video.count_frames(drawn / "e.mp4") == 12


@pytest.mark.parametrize("where", ("add", "end"))
def test_a_copy_that_fails_leaves_no_row_that_says_it_is_done(where, folder, tiny_run, monkeypatch):
    drawn, out = folder.parent / "drawn", folder.parent / "out.csv"
    arguments = (folder / "a.png", folder / "more" / "e.mp4", "--out", out, "--annotate", drawn)

    def fail(*_):
        raise Stopped

    with monkeypatch.context() as patch:
        real = getattr(Annotations, where)
        # The picture's goes well, the video's does not.
        patch.setattr(Annotations, where, lambda *args: fail() if called.pop() else real(*args))
        called = [True, False]
        with pytest.raises(Stopped):
            run(tiny_run, *arguments)
    assert [row["source"] for row in rows(out)][:1] == [str(folder / "a.png")]
    assert run(tiny_run, *arguments, "--resume") == 0
    assert len(rows(out)) == 13 and video.count_frames(drawn / "e.mp4") == 12


def test_an_original_is_never_drawn_over(folder, tiny_run, capsys):
    Image.new("L", (48, 48)).save(folder / "p.jpg")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    for arguments in ((folder / "p.jpg",), (folder / "more" / "e.mp4",), (folder,)):
        target = folder / "more" if "e.mp4" in str(arguments[0]) else folder
        assert run(tiny_run, *arguments, "--annotate", target) == 2
        assert "would take the place of the original" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_copies_keep_their_names_when_a_run_goes_on(folder, tiny_run):
    drawn, out = folder.parent / "drawn", folder.parent / "out.csv"
    (folder / "other").mkdir()
    Image.new("RGB", (60, 30)).save(folder / "other" / "a.png")
    assert run(tiny_run, folder / "a.png", "--out", out, "--annotate", drawn) == 0
    both = (folder / "a.png", folder / "other" / "a.png")
    assert run(tiny_run, *both, "--out", out, "--annotate", drawn, "--resume") == 0
    sizes = {path.name: Image.open(path).size for path in drawn.iterdir()}
    assert sizes == {"a.jpg": (48, 48), "a_2.jpg": (60, 30)}


def stop_in_video(folder, tiny_run, out, monkeypatch):
    """A table of the clip that was stopped after its eighth frame."""
    monkeypatch.setattr(predict, "_MARK_EVERY", 0.0)
    with stopping_after(2, monkeypatch), pytest.raises(Stopped):
        run(tiny_run, folder / "more" / "e.mp4", "--out", out)
    assert len(rows(out)) == 8


def test_going_on_without_the_video_that_was_begun_is_refused(folder, tiny_run, monkeypatch, capsys):
    out = folder.parent / "out.csv"
    stop_in_video(folder, tiny_run, out, monkeypatch)
    write_clip(folder / "other.mp4", steps(12), rate=10)
    assert run(tiny_run, folder / "other.mp4", "--out", out, "--resume") == 2
    assert "was stopped in" in capsys.readouterr().err
    assert len(rows(out)) == 8


def test_a_video_is_not_begun_to_be_drawn_on_in_its_middle(folder, tiny_run, monkeypatch, capsys):
    out = folder.parent / "out.csv"
    stop_in_video(folder, tiny_run, out, monkeypatch)
    drawn = folder.parent / "drawn"
    assert run(tiny_run, folder / "more" / "e.mp4", "--out", out, "--annotate", drawn, "--resume") == 2
    assert "made with annotate False; now it is annotate True" in capsys.readouterr().err


def test_another_spelling_of_a_path_is_the_same_file(folder, tiny_run, monkeypatch, capsys):
    out = folder.parent / "out.csv"
    stop_in_video(folder, tiny_run, out, monkeypatch)
    spelt = folder / "more" / ".." / "more" / "e.mp4"
    assert run(tiny_run, spelt, "--out", out, "--resume") == 0
    capsys.readouterr()
    assert run(tiny_run, spelt, "--out", out, "--resume") == 0
    assert capsys.readouterr().out == f"nothing is left to do: {out} has every input, in 12 rows\n"
    assert [int(row["frame"]) for row in rows(out)] == list(range(12))
    assert {row["source"] for row in rows(out)} == {str(folder / "more" / "e.mp4")}


def test_a_full_disk_says_how_to_go_on(folder, tiny_run, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Annotations, "add", refuse)
    drawn, out = folder.parent / "drawn", folder.parent / "out.csv"
    assert run(tiny_run, folder / "a.png", "--out", out, "--annotate", drawn) == 2
    assert "is full: free space and give the same command again with --resume" in capsys.readouterr().err


def test_a_full_disk_under_the_standard_output_is_named_so(folder, tiny_run, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tqdm, "write", refuse)
    assert run(tiny_run, folder / "a.png") == 2
    message = "error: the disk of the standard output is full: free space and give the same command again\n"
    assert message in capsys.readouterr().err


def test_without_a_table_what_is_found_is_printed(folder, tiny_run, capsys):
    assert run(tiny_run, folder / "a.png", folder / "b.png") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{folder}/a.png: face 48 x 48 at 0, 0: ") and lines[0].count("%") == 3
    assert lines[1].startswith(f"error: {folder}/b.png: cannot be decoded")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothere.png"], "error: nothere.png does not exist"),
        (["{in}/a.png", "--out", "out.xlsx"], "expected a file ending in .csv or .jsonl"),
        (["{in}/a.png", "--out", "{in}/there.csv"], "there.csv exists: go on with it by --resume"),
        (["{in}/a.png", "--annotate", "{in}/a.png/x"], "a.png/x (Not a directory); give another --annotate"),
        (["{in}/a.png", "--out", "{in}/a.png/x.csv"], "a.png is not a folder); give another --out"),
    ],
)
def test_what_cannot_be_begun_says_why(arguments, message, folder, tiny_run, capsys):
    (folder / "there.csv").touch()
    before = sorted(folder.rglob("*"))
    assert run(tiny_run, *(argument.replace("{in}", str(folder)) for argument in arguments)) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--resume"], "goes on with the table of --out"), (["--every", "0"], "expected seconds above 0")],
)
def test_flags_that_make_no_sense_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        predict.main(["a.png", *arguments])
    assert message in capsys.readouterr().err


def test_as_a_program(folder, tiny_run):
    command = ["-m", "fer_jax", "predict", folder / "a.png", "--model", tiny_run, "--detector", "whole"]
    done = run_python(*command, "--out", folder / "out.jsonl", JAX_COMPILATION_CACHE_DIR="")
    assert done.returncode == 0, done.stderr
    assert len(rows(folder / "out.jsonl")) == 1
    assert "1 picture, 1 face -> " in done.stdout and done.stderr == ""
