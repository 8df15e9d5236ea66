"""Detects faces in images and videos and classifies their emotions.

    fer-jax predict --demo
    fer-jax predict photo.jpg
    fer-jax predict holiday/ clip.mp4 'more/**/*.png' --out results.csv --annotate annotated
    fer-jax predict --camera 0 --show
    fer-jax predict rtsp://camera.local/stream --out results.csv

Without --out the results are printed, one line per face. With --out they are written to a table: one row per
face, per image or frame without a face (status no_face), and per unreadable file (status error; the other
files are still processed). For videos, rows have the frame number, the time in seconds, the track ID of the
face, and the emotion smoothed over half a second. --annotate draws the results on copies, which keep a
video's sound; --timeline plots the smoothed emotions in videos over time, one line per track.

After an interruption, run the same command with --resume to continue the table.

A camera or stream is read until Ctrl-C (or until its window is closed), always at the latest frame; broken
connections are reopened. Its rows are written immediately.

Exit code: 0 if all files were read, 1 if some were not, 2 for an error, 130 if stopped.
"""

import argparse
import collections
import contextlib
import dataclasses
import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fer_jax.commands import common
from fer_jax.inference import drawing
from fer_jax.inference.media import VideoError, inputs, stream
from fer_jax.inference.media.inputs import Input, InputError
from fer_jax.inference.media.tracking import Tracker
from fer_jax.inference.output.annotations import Annotations
from fer_jax.inference.output.table import Table, TableError, rows
from fer_jax.inference.output.timeline import Timeline
from fer_jax.inference.output.window import Window
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import DetectedFrame, Face
from fer_jax.pretrained import download
from fer_jax.pretrained.registry import find_weights

TIMELINE_ENDINGS = (".png", ".svg", ".pdf")
_MARK_EVERY = 1.0  # seconds between writes of the table


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="image, video, folder, glob pattern, or URL of a stream")
    text = "number of a camera of this machine, from 0"
    add("--camera", type=common.number(int, 0), metavar="N", help=text)
    add("--show", action="store_true", help="show the camera or stream in a window")
    add("--demo", action="store_true", help="use the example photograph")
    common.add_predictor(parser)
    text = "also detect faces that are sideways or upside down; about four times slower"
    add("--any_rotation", action="store_true", help=text)
    text = "process one video frame every SECONDS seconds (default: all frames)"
    add("--every", type=common.number(float, 1e-6), metavar="SECONDS", help=text)
    text = "read all frames of GIF and WebP files, not only the first"
    add("--frames", action="store_true", help=text)
    add("--out", metavar="FILE", help="table to write: .csv or .jsonl")
    text = "folder for annotated copies, images as .jpg and videos as .mp4 or .mkv"
    add("--annotate", metavar="DIR", help=text)
    text = f"plot of emotions over time in videos: {', '.join(TIMELINE_ENDINGS)}"
    add("--timeline", metavar="FILE", help=text)
    add("--resume", action="store_true", help="continue the unfinished table given by --out")
    args = parser.parse_args(argv)
    if not args.inputs and not args.demo and args.camera is None:
        parser.error("give an INPUT, --camera, or --demo")
    if args.resume and not args.out:
        parser.error("--resume continues the table given by --out: add --out")
    if args.timeline and args.resume:
        parser.error("--timeline cannot be combined with --resume")
    if args.timeline and not args.timeline.lower().endswith(TIMELINE_ENDINGS):
        parser.error(f"--timeline {args.timeline}: expected a file ending in {', '.join(TIMELINE_ENDINGS)}")
    return common.run(predict, args)


def predict(args: argparse.Namespace) -> int:
    """Predicts all inputs; returns the exit code.

    Raises:
      InputError: if an input does not exist.
      TableError: if the table cannot be started or resumed.
      As `Predictor.load`.
    """
    sample = [str(inputs.SAMPLE)] if args.demo else []
    found, skipped = inputs.find([*args.inputs, *sample], args.frames)
    found += [] if args.camera is None else [inputs.camera(args.camera)]
    stop = _open_live(found, args)
    if skipped:
        print(f"{_some(len(found), 'input')}{inputs.describe(skipped)}", file=sys.stderr)
    if animated := sum(one.is_animated for one in found):
        text = f"only the first frame of {_some(animated, 'animated image')} is read; --frames reads all"
        print(f"note: {text}", file=sys.stderr)
    # With many faces, only a few batch sizes are worth compiling.
    sizes = (1, 8, 64) if stop or (len(found) == 1 and not found[0].is_video) else (64, 256)
    predictor = Predictor.load(
        args.model,
        args.detector,
        margin=args.margin,
        any_rotation=args.any_rotation,
        engine=args.engine,
        batch_sizes=sizes,
    )
    annotations, timeline, table, position = None, None, None, None
    # Before finished inputs are dropped, so that a resumed run gives copies the same names.
    if args.annotate:
        annotations = Annotations(common.open_folder(args.annotate, "--annotate"), found)
    if args.timeline:
        common.open_folder(Path(args.timeline).parent, "--timeline")
        timeline = Timeline()
    window = Window(found[0].path, stop.set) if stop and args.show else None
    if args.out:
        table = Table(args.out, predictor.classifier.emotions, _made_by(args))
        if args.resume:
            finished = table.finished
            found, position = _rest(table, found)
            if not found:
                print(f"nothing to do: {args.out} has every input, in {_some(table.rows, 'row')}")
                return 0
            if finished:
                print(
                    f"note: {args.out} was finished; the settings that made it are unknown",
                    file=sys.stderr,
                )
        else:
            table.start()
    try:
        interrupts = nothing = contextlib.nullcontext()
        if stop:
            from fer_jax.inference.media import live  # slow to import, and not needed for files

            interrupts = live.interrupt_sets(stop)
        with annotations or nothing, interrupts:
            shown = (annotations, timeline, window)
            counts = _process(predictor, found, args.every, position, table, *shown, stop)
        if table:
            table.finish()
        if timeline:
            timeline.save(args.timeline)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        full = error.filename or args.out or args.annotate or "the standard output"
        again = " with --resume" if args.out else ""
        message = f"the disk of {full} is full: free space and run the same command again{again}"
        raise ValueError(message) from error
    print(_summary(counts, args), file=sys.stdout if args.out else sys.stderr)
    return 1 if counts["file"] else 0


def _open_live(found: list[Input], args: argparse.Namespace) -> threading.Event | None:
    """Returns the event that stops the camera or stream among the inputs; None if there is none.

    Raises:
      InputError: if it is not the only input, or a flag does not apply.
    """
    one = next((one for one in found if one.address), None)
    if one is None:
        if args.show:
            raise InputError("--show needs a camera or stream: give --camera or a URL")
        return None
    if len(found) > 1:
        raise InputError(f"{one.path} is a live input: give it without other inputs")
    for flag in ("resume", "timeline"):
        if getattr(args, flag):
            raise InputError(f"--{flag} is for files, but {one.path} is a live input")
    return threading.Event()


def _rest(table: Table, found: list[Input]) -> tuple[list[Input], dict[str, Any] | None]:
    """Returns the inputs that a resumed table lacks, and the position in the first of them.

    Raises:
      TableError: as `Table.resume`, or the table ends within a file that is not among the inputs.
    """
    done, position = table.resume()
    done = set(map(os.path.abspath, done))
    rest = [one for one in found if os.path.abspath(one.path) not in done]
    if position is None:
        return rest, None
    begun = os.path.abspath(position["source"])
    # First, so that its rows stay together, and under the name in the table.
    rest.sort(key=lambda one: os.path.abspath(one.path) != begun)
    if not rest or os.path.abspath(rest[0].path) != begun:
        raise TableError(
            f"{table.path} ends within {position['source']}, which is not among the inputs: add it"
        )
    return [dataclasses.replace(rest[0], path=position["source"]), *rest[1:]], position


def _made_by(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that the rows of a table depend on, under the names in existing tables."""
    weights = Path(find_weights(args.model))
    return {
        "model": download.digest(weights) if weights.is_file() else str(weights),
        # An annotated video is written from its start, so runs with and without copies differ.
        "annotate": bool(args.annotate),
        "detector": args.detector,
        "margin": args.margin,
        "any_turn": args.any_rotation,
        "every": args.every,
    } | ({"frames": True} if args.frames else {})


def _process(
    predictor: Predictor,
    found: list[Input],
    every: float | None,
    position: dict[str, Any] | None,
    table: Table | None,
    annotations: Annotations | None,
    timeline: Timeline | None,
    window: Window | None,
    stop: threading.Event | None,
) -> collections.Counter[str]:
    """Writes, prints, and draws results; even after an error, the table has all finished rows.

    Returns:
      The number of images, frames, and faces, of images and frames without a face ('empty'), and of
      unreadable files ('file').
    """
    tracker = Tracker.restore(position["tracker"]) if position else Tracker()
    start = position["frame"] + 1 if position else 0
    keep = annotations is not None or window is not None
    frames = stream.detect(found, predictor, every_seconds=every, keep_images=keep, start=start, stop=stop)
    if stop:  # a frame prepared ahead would not be the latest
        classified = stream.classify(frames, predictor, tracker, max_waiting=1)
    else:
        frames = stream.ahead(frames, stream.AHEAD_WITH_IMAGES if keep else stream.AHEAD)
        classified = stream.classify(frames, predictor, tracker)
    counts, marked = collections.Counter(), 0.0
    try:
        with _progress(found, every, start) as bar:
            for frame, faces, tracks in classified:
                # First, so that no row refers to a copy that does not exist.
                if annotations:
                    annotations.add(frame, faces, tracks)
                if timeline:
                    timeline.add(frame, faces, tracks)
                if window and frame.size:
                    window.show(drawing.draw_tracks(frame.image, faces, tracks))
                if table is None:
                    _print(bar, frame, faces)
                else:
                    here = {"source": frame.source, "frame": frame.frame, "tracker": tracker.state()}
                    resumable = frame.ends or annotations is None
                    table.write(rows(frame, faces, tracks), None if frame.ends else here, resumable)
                    if stop or time.monotonic() - marked > _MARK_EVERY:
                        table.mark()
                        marked = time.monotonic()
                if frame.size:
                    counts["image" if frame.frame is None else "frame"] += 1
                counts["face"] += len(faces)
                counts["empty"] += bool(frame.size) and not faces
                counts["file"] += frame.error is not None
                bar.update(frame.size is not None)
    finally:
        if table:
            table.mark()
    return counts


def _summary(counts: collections.Counter[str], args: argparse.Namespace) -> str:
    what = [_some(counts[name], name) for name in ("image", "frame") if counts[name]]
    text = ", ".join([*what, _some(counts["face"], "face")])
    if counts["empty"]:
        text += f"; {counts['empty']:,} without a face"
    if counts["file"]:
        text += f"; {_some(counts['file'], 'file')} could not be read"
    copies = f"; annotated copies in {args.annotate}" if args.annotate else ""
    chart = f"; emotions over time in {args.timeline}" if args.timeline else ""
    return text + (f" -> {args.out}" if args.out else "") + copies + chart


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _progress(found: list[Input], every: float | None, start: int) -> tqdm:
    """Returns a progress bar over all images and frames, with a total if the files state it."""
    total = 0
    for one in found:
        count = None if one.address else 1
        if one.is_video and not one.address:
            from fer_jax.inference.media import video  # whose libraries images need not wait for

            with contextlib.suppress(VideoError):
                count = video.read_header(one.path, every).frames
        total = total + count if total is not None and count else None
    return tqdm(total=total, unit=" frames", desc="predicting", initial=start, disable=total == 1)


def _print(bar: tqdm, frame: DetectedFrame, faces: tuple[Face, ...]) -> None:
    place = frame.source if frame.frame is None else f"{frame.source} {frame.seconds:.2f} s"
    if frame.error is not None:
        bar.write(f"error: {frame.error}")  # which includes the file name
    elif frame.size and not faces:
        bar.write(f"{place}: no face")
    for face in faces:
        left, top, width, height = (round(value) for value in face.box)
        answers = ", ".join(f"{name} {100 * p:.0f} %" for name, p in face.top(3))
        unsure = " (unsure)" if face.unsure else ""
        bar.write(f"{place}: face {width} x {height} at {left}, {top}: {answers}{unsure}")
