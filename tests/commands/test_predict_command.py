"""Tests fer-jax predict on images, folders, and videos."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from clips import level, steps, write_clip
from helpers import rows_of, run_python
from PIL import Image
from tqdm import tqdm

from fer_jax.commands import predict
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.detection.detectors import FullImage
from fer_jax.inference.media import video
from fer_jax.inference.output.annotations import Annotations
from fer_jax.inference.predictor import Predictor
from fer_jax.pretrained.loaded_model import LoadedModel


class Stopped(Exception):
    """An error that interrupts a run."""


@pytest.fixture(scope="module", autouse=True)
def one_predictor(tiny_run):
    """Loads the tiny network once for all runs in this process, with batches of four faces."""
    loaded = Predictor.load(tiny_run, "whole")
    loaded.classifier.engine.batch_size = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "load", lambda *_, **__: loaded)
        yield


@pytest.fixture(scope="module")
def originals(tmp_path_factory, tiny_data):
    """Returns files: three faces, one of them damaged, and a clip of 12 frames."""
    images = read.load(tiny_data, "validation").images
    root = tmp_path_factory.mktemp("originals")
    (root / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "c.png", "more/d.png")):
        Image.fromarray(images[i, ..., 0]).save(root / name)
    (root / "b.png").write_text("hello")
    write_clip(root / "more" / "e.mp4", steps(12), rate=10)
    return root


@pytest.fixture
def folder(originals, tmp_path):
    return shutil.copytree(originals, tmp_path / "in")


@pytest.fixture
def clip(folder):
    return folder / "more" / "e.mp4"


@pytest.fixture
def stopping_after(monkeypatch):
    @contextlib.contextmanager
    def stopping(count):
        """A context in which a run is interrupted after a number of batches."""
        classify, left = Predictor.classify, [count]

        def stop(self, *arguments):
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            return classify(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(predict, "_MARK_EVERY", 0.0)
            patch.setattr(Predictor, "classify", stop)
            with pytest.raises(Stopped):
                yield

    return stopping


def sizes(drawn):
    return {path.name: Image.open(path).size for path in drawn.iterdir()}


def refuse(*_):
    raise OSError(28, "No space left on device")


def test_a_table_has_a_row_for_every_image_frame_and_error(folder, out, run, tiny_run, tiny_data, capsys):
    (folder / "x.heic").touch()
    assert run(folder, "--out", out) == 1
    found = rows_of(out)
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
    said = capsys.readouterr()
    assert f"3 images, 12 frames, 15 faces; 1 file could not be read -> {out}\n" in said.out
    assert "5 inputs; skipped: 1 .heic (pip install 'fer_jax[heif]' to read HEIC)\n" in said.err
    assert not out.with_name("out.csv.state").exists()


def test_smoothed_probabilities_follow_with_a_memory_of_half_a_second(tmp_path, run):
    path = write_clip(tmp_path / "clip.mkv", steps(2) * 3, rate=4)
    assert run(path, "--out", tmp_path / "out.jsonl") == 0
    found = rows_of(tmp_path / "out.jsonl")
    seen = np.array([[row[f"p_{name}"] for name in EMOTIONS] for row in found])
    smooth = seen[0]
    for row, now in zip(found[1:], seen[1:], strict=True):
        smooth = np.exp(-0.5) * smooth + (1 - np.exp(-0.5)) * now
        assert row["smoothed_confidence"] == pytest.approx(smooth.max(), abs=2e-6)
        assert row["smoothed_emotion"] == EMOTIONS[smooth.argmax()]


def test_the_frames_of_an_animation_are_read_if_wanted(tmp_path, out, run, capsys):
    path, (first, *rest) = tmp_path / "a.gif", [Image.fromarray(image) for image in steps(3)]
    first.save(path, save_all=True, append_images=rest, duration=100)
    assert run(path) == 0
    said = capsys.readouterr().err
    assert "note: only the first frame of 1 animated image is read; --frames reads all\n" in said
    assert run(path, "--out", out, "--frames") == 0
    assert [(row["frame"], row["track"]) for row in rows_of(out)] == [("0", "1"), ("1", "1"), ("2", "1")]
    assert "note: " not in capsys.readouterr().err


def test_one_frame_per_period(clip, out, run):
    assert run(clip, "--every", "0.4", "--out", out) == 0
    assert [row["frame"] for row in rows_of(out)] == ["0", "4", "8"]


@pytest.mark.parametrize("ending", (".csv", ".jsonl"))
def test_a_run_that_is_stopped_anywhere_resumes_to_the_same_table(
    ending, folder, tmp_path, run, stopping_after
):
    """Four faces are classified at a time, so the stops are before, between, and within files."""
    complete = tmp_path / f"complete{ending}"
    run(folder, "--out", complete)
    for classified in range(4):
        parts = tmp_path / f"parts{classified}{ending}"
        with stopping_after(classified):
            run(folder, "--out", parts)
        kept = parts.read_bytes()
        assert complete.read_bytes().startswith(kept) and (len(kept) > 300) == (classified > 0)
        run(folder, "--out", parts, "--resume")
        assert parts.read_bytes() == complete.read_bytes()


def test_resuming_a_finished_table_adds_what_is_new(folder, out, run, capsys):
    run(folder, "--out", out)
    before = out.read_text()
    Image.new("L", (48, 48)).save(folder / "0.png")
    capsys.readouterr()
    assert run(folder, "--out", out, "--resume") == 0
    assert "note: " in capsys.readouterr().err  # it is unknown whether the same model wrote it
    assert out.read_text().startswith(before)
    assert [row["source"] for row in rows_of(out)][16:] == [str(folder / "0.png")]


def test_annotated_copies_lie_as_their_originals_do(folder, drawn, run, capsys):
    assert run(folder, folder / "more" / "d.png", "--annotate", drawn) == 1
    found = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*"))
    assert found == ["a.jpg", "c.jpg", "more/d.jpg", "more/e.mp4"]
    assert f"1 file could not be read; annotated copies in {drawn}\n" in capsys.readouterr().err
    with Image.open(drawn / "a.jpg") as image:
        assert image.size == (48, 48) and image.mode == "RGB"
    frames = list(video.read_frames(drawn / "more" / "e.mp4"))
    assert [round(frame.seconds, 2) for frame in frames] == [i / 10 for i in range(12)]
    assert level(frames[0].image) == 0 and frames[0].image.shape == (48, 64, 3)


def test_copies_of_one_name_are_kept_apart_and_keep_their_names(folder, drawn, out, run):
    other = folder / "other" / "a.png"
    other.parent.mkdir()
    Image.new("RGB", (60, 30)).save(other)
    assert run(folder / "a.png", "--out", out, "--annotate", drawn) == 0
    assert run(folder / "a.png", other, "--out", out, "--annotate", drawn, "--resume") == 0
    assert sizes(drawn) == {"a.jpg": (48, 48), "a_2.jpg": (60, 30)}


def test_a_stopped_run_leaves_no_part_of_an_annotated_video_and_makes_it_again(
    clip, drawn, out, run, stopping_after
):
    with stopping_after(2):
        run(clip, "--out", out, "--annotate", drawn)
    assert list(drawn.iterdir()) == [] and len(rows_of(out)) == 8  # they are written again
    assert run(clip, "--out", out, "--annotate", drawn, "--resume") == 0
    assert len(rows_of(out)) == 12 and video.read_header(drawn / "e.mp4").frames == 12


@pytest.mark.parametrize("call", (2, 13))  # for the first frame of the video and for its end
def test_a_copy_that_fails_leaves_no_row_that_says_it_is_done(
    call, folder, clip, drawn, out, run, monkeypatch
):
    arguments = (folder / "a.png", clip, "--out", out, "--annotate", drawn)
    real, calls = Annotations.add, []

    def fail(*args):
        calls.append(1)
        if len(calls) == call:
            raise Stopped
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Annotations, "add", fail)
        with pytest.raises(Stopped):
            run(*arguments)
    assert [row["source"] for row in rows_of(out)][:1] == [str(folder / "a.png")]
    assert run(*arguments, "--resume") == 0
    assert len(rows_of(out)) == 13 and video.read_header(drawn / "e.mp4").frames == 12


def test_an_original_is_never_overwritten(folder, clip, run, capsys):
    Image.new("L", (48, 48)).save(folder / "p.jpg")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    for original, target in ((folder / "p.jpg", folder), (clip, clip.parent), (folder, folder)):
        assert run(original, "--annotate", target) == 2
        assert "would overwrite the original" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_table_that_was_stopped_in_a_video_is_resumed_as_it_was_begun(
    folder, clip, drawn, out, run, stopping_after, capsys
):
    with stopping_after(2):
        run(clip, "--out", out)
    other = write_clip(folder / "other.mp4", steps(2), rate=10)
    assert run(other, "--out", out, "--resume") == 2
    assert "ends within" in capsys.readouterr().err
    assert run(clip, "--out", out, "--annotate", drawn, "--resume") == 2
    assert "made with annotate False; now it is annotate True" in capsys.readouterr().err
    assert len(rows_of(out)) == 8
    # Different spellings of a path name the same file.
    spelled = folder / "more" / ".." / "more" / "e.mp4"
    assert run(spelled, "--out", out, "--resume") == 0
    capsys.readouterr()
    assert run(spelled, "--out", out, "--resume") == 0
    assert capsys.readouterr().out == f"nothing to do: {out} has every input, in 12 rows\n"
    assert [int(row["frame"]) for row in rows_of(out)] == list(range(12))
    assert {row["source"] for row in rows_of(out)} == {str(clip)}


def test_the_state_beside_a_table_keeps_its_names(clip, out, run, stopping_after):
    with stopping_after(2):
        run(clip, "--out", out)
    state = json.loads(out.with_name("out.csv.state").read_text())
    assert set(state["made_by"]) == {"model", "annotate", "detector", "margin", "any_turn", "every"}
    assert set(state) == {"bytes", "going_on", "made_by"}
    assert set(state["going_on"]) == {"source", "frame", "tracker"}


def test_a_full_disk_is_named_with_how_to_resume(folder, drawn, out, run, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(Annotations, "add", refuse)
        assert run(folder / "a.png", "--out", out, "--annotate", drawn) == 2
    message = "is full: free space and run the same command again with --resume"
    assert message in capsys.readouterr().err
    monkeypatch.setattr(tqdm, "write", refuse)
    assert run(folder / "a.png") == 2
    message = "error: the disk of the standard output is full: free space and run the same command again\n"
    assert message in capsys.readouterr().err


def test_without_a_table_the_results_are_printed(folder, clip, run, monkeypatch, capsys):
    assert run(folder / "a.png", folder / "b.png", clip) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith(f"{folder}/a.png: face 48 x 48 at 0, 0: ") and lines[0].count("%") == 3
    assert lines[1].startswith(f"error: {folder}/b.png: cannot be decoded")
    assert lines[2].startswith(f"{clip} 0.00 s: face 64 x 48 at 0, 0: ") and len(lines) == 14
    monkeypatch.setattr(FullImage, "detect", lambda *_: [])
    assert run(folder / "a.png") == 0
    said = capsys.readouterr()
    assert said.out == f"{folder}/a.png: no face\n"
    assert said.err.endswith("1 image, 0 faces; 1 without a face\n")


@pytest.mark.drawn
def test_a_timeline_is_drawn_beside_a_table(clip, out, run, tmp_path, capsys):
    path = tmp_path / "new" / "emotions.svg"
    assert run(clip, "--out", out, "--timeline", path) == 0
    assert f"emotions over time in {path}\n" in capsys.readouterr().out
    assert path.read_text().startswith("<?xml") and len(rows_of(out)) == 12
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_the_demo_needs_no_image_of_ones_own(run, drawn, capsys):
    assert run("--demo", "--annotate", drawn) == 0
    assert "grace_hopper.jpg: face 512 x 600 at 0, 0: " in capsys.readouterr().out
    assert sizes(drawn) == {"grace_hopper.jpg": (512, 600)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothere.png"], "error: nothere.png does not exist"),
        (["{in}/a.png", "--out", "out.xlsx"], "expected a file ending in .csv or .jsonl"),
        (["{in}/a.png", "--out", "{in}/there.csv"], "there.csv exists: add --resume"),
        (["{in}/a.png", "--annotate", "{in}/a.png/x"], "a.png/x (Not a directory); give another --annotate"),
        (["{in}/a.png", "--out", "{in}/a.png/x.csv"], "a.png is not a folder); give another --out"),
    ],
)
def test_what_cannot_be_begun_says_why(arguments, message, folder, run, capsys):
    (folder / "there.csv").touch()
    before = sorted(folder.rglob("*"))
    assert run(*(argument.replace("{in}", str(folder)) for argument in arguments)) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give an INPUT, --camera, or --demo"),
        (["a.png", "--resume"], "--resume continues the table given by --out"),
        (["a.png", "--every", "0"], "--every: '0': expected float"),
        (["a.mp4", "--timeline", "a.xlsx"], "expected a file ending in .png, .svg, .pdf"),
        (["a.mp4", "--timeline", "a.png", "--out", "a.csv", "--resume"], "cannot be combined with --resume"),
    ],
)
def test_flags_that_contradict_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        predict.main(arguments)
    assert message in capsys.readouterr().err


def test_as_a_program(folder, tiny_run):
    command = ["-m", "fer_jax", "predict", folder / "a.png", "--model", tiny_run, "--detector", "whole"]
    done = run_python(*command, "--out", folder / "out.jsonl", JAX_COMPILATION_CACHE_DIR="")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(folder / "out.jsonl")) == 1
    assert "1 image, 1 face -> " in done.stdout and done.stderr == ""
