"""Finds faces in pictures and videos and tells their emotions.

    fer-jax predict photo.jpg
    fer-jax predict holiday/ clip.mp4 'more/**/*.png' --out results.csv --annotate annotated

Without --out what is found is printed, a line for each face. With it a table gets one row for each face, or
for a picture or frame without one (status no_face), or for a file that cannot be read (status error, with
the reason; the others go on). In videos each row has the frame, the time in seconds, the face's track (its
number as long as it is in sight), and the emotion smoothed over half a second. --annotate draws what was
found on copies; those of videos keep the sound.

What was written stays when a run is stopped; the same command with --resume goes on.

Exit code: 0 when all could be read, 1 when some files could not, 2 when nothing could be done, 130 when
stopped.
"""

import argparse
import dataclasses
import errno
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_jax.commands import common
from fer_jax.pretrained.registry import BUNDLED, DEFAULT, find_weights

if TYPE_CHECKING:
    from tqdm import tqdm

    from fer_jax.inference.media.inputs import Input
    from fer_jax.inference.media.stream import DetectedFrame
    from fer_jax.inference.output.annotations import Annotations
    from fer_jax.inference.output.table import Table
    from fer_jax.inference.predictor import Predictor
    from fer_jax.inference.structures import Face

_MARK_EVERY = 1.0  # seconds between notes of how far a table is whole


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="pictures, videos, folders or patterns")
    parser.add_argument(
        "--model",
        default=DEFAULT,
        metavar="WEIGHTS",
        help="a .safetensors file, a run's directory or one that comes with the package: "
        f"{', '.join(BUNDLED)} (default: %(default)s)",
    )
    parser.add_argument(
        "--detector",
        default="yunet",
        choices=("yunet", "mediapipe", "whole"),
        help="what finds the faces; whole: each picture is one face (default: yunet)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=1.0,
        help="what the network sees of a face over what it saw in training (default: 1)",
    )
    parser.add_argument(
        "--any_rotation",
        action="store_true",
        help="find faces that lie on their side or head, too; four times the work",
    )
    parser.add_argument(
        "--every",
        type=float,
        metavar="SECONDS",
        help="look at one frame of a video in so many seconds (default: all)",
    )
    parser.add_argument("--out", metavar="FILE", help="table to write: .csv or .jsonl")
    parser.add_argument(
        "--annotate",
        metavar="DIR",
        help="folder for copies with what was found drawn in: of pictures as .jpg, of videos as .mp4 or .mkv",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a table that is there already")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.resume and not args.out:
        parser.error("--resume goes on with the table of --out")
    if args.every is not None and args.every <= 0:
        parser.error(f"--every {args.every:g}: expected seconds above 0")
    return common.run(predict, args)


def predict(args: argparse.Namespace) -> int:
    """Does what the flags say; the exit code.

    Raises:
      InputError: an input is not there.
      TableError: the table cannot be begun or gone on with.
      As `Predictor.load`.
    """
    from fer_jax import runtime
    from fer_jax.inference.media import inputs
    from fer_jax.inference.output.annotations import Annotations
    from fer_jax.inference.output.table import Table
    from fer_jax.inference.predictor import Predictor

    runtime.tune_cpu()
    found = inputs.find(args.inputs)
    alone = len(found) == 1 and not found[0].is_video
    # Of many faces few sizes are worth their compilation.
    sizes = (1, 8, 64) if alone else (64, 256)
    predictor = Predictor.load(
        args.model, args.detector, margin=args.margin, any_rotation=args.any_rotation, batch_sizes=sizes
    )
    # Before what is done is left out: copies have the same names when the run goes on.
    annotations = None
    if args.annotate:
        annotations = Annotations(common.open_folder(args.annotate, "--annotate"), found)
    table, going_on = None, None
    if args.out:
        table = Table(args.out, predictor.classifier.emotions, _made_by(args))
        if args.resume:
            found, going_on = _rest(table, found)
            if not found:
                print(f"nothing is left to do: {args.out} has every input, in {_some(table.rows, 'row')}")
                return 0
        else:
            table.start()
    try:
        with _Run(predictor, table, annotations) as run:
            run.go(found, args.every, going_on)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        full = error.filename or args.out or args.annotate or "the standard output"
        again = " with --resume" if args.out else ""
        raise ValueError(
            f"the disk of {full} is full: free space and give the same command again{again}"
        ) from error
    print(run.summary(), file=sys.stdout if args.out else sys.stderr)
    return 1 if run.counts["unreadable"] else 0


def _rest(table: "Table", found: "list[Input]") -> "tuple[list[Input], dict[str, Any] | None]":
    """What is left to do of a table that was begun: the files, and how to go on in the first of them.

    Raises:
      TableError: as `Table.resume`; or it was stopped in a file that is none of these.
    """
    from fer_jax.inference.output.table import TableError

    done, going_on = table.resume()
    done = set(map(os.path.abspath, done))
    rest = [one for one in found if os.path.abspath(one.path) not in done]
    if going_on is None:
        return rest, None
    begun = os.path.abspath(going_on["source"])
    # It comes first, so that its rows stay together, and under the name that they have.
    first = [
        dataclasses.replace(one, path=going_on["source"])
        for one in rest
        if os.path.abspath(one.path) == begun
    ]
    if not first:
        raise TableError(
            f"{table.path} was stopped in {going_on['source']}, which is not among the inputs: name it, too"
        )
    return first + [one for one in rest if os.path.abspath(one.path) != begun], going_on


def _made_by(args: argparse.Namespace) -> dict[str, Any]:
    """What the rows of a table depend on besides the pictures."""
    from fer_jax.pretrained import download

    weights = Path(find_weights(args.model))
    known = {"model": download.digest(weights) if weights.is_file() else str(weights)}
    # A copy of a video cannot be begun in its middle, so a run with copies is gone on with as one.
    known["annotate"] = bool(args.annotate)
    known["any_turn"] = args.any_rotation  # as tables that exist already name it
    return known | {name: getattr(args, name) for name in ("detector", "margin", "every")}


class _Run:
    """Goes through files, and writes, prints and draws what is found.

    A context manager; however it is left, the table holds what was done.

    Attributes:
      counts: of pictures (frames of videos among them), faces, pictures without one, files with an error.
    """

    def __init__(self, predictor: "Predictor", table: "Table | None", annotations: "Annotations | None"):
        self._predictor, self._table, self._annotations = predictor, table, annotations
        self._tracker = None
        self._marked = 0.0
        self.counts = dict.fromkeys(("pictures", "faces", "empty", "unreadable"), 0)

    def go(self, found: "list[Input]", every: float | None, going_on: dict[str, Any] | None) -> None:
        """Does all of it.

        Args:
          found: the files.
          every: seconds from frame to frame of a video, None for all.
          going_on: what the table noted of the first of them, None to begin it.
        """
        from fer_jax.inference.media import stream
        from fer_jax.inference.media.tracking import Tracker

        self._tracker = Tracker.restore(going_on["tracker"]) if going_on else Tracker()
        start = going_on["frame"] + 1 if going_on else 0
        keep = self._annotations is not None
        seen = stream.look(found, self._predictor, every_seconds=every, keep_images=keep, start=start)
        ahead = stream.AHEAD_WITH_IMAGES if keep else stream.AHEAD
        with _progress(found, every, start) as bar:
            for one, faces in stream.classify(stream.ahead(seen, ahead), self._predictor):
                self._take(one, faces, bar)

    def _take(self, seen: "DetectedFrame", faces: "list[Face]", bar: "tqdm") -> None:
        from fer_jax.inference.media.tracking import Tracker
        from fer_jax.inference.output import table

        tracks, going_on = [], None
        if seen.frame is not None:
            boxes, probabilities = [face.box for face in faces], [face.probabilities for face in faces]
            tracks = self._tracker.update(boxes, probabilities, seen.seconds)
            going_on = {"source": seen.source.path, "frame": seen.frame, "tracker": self._tracker.state()}
        if seen.ends:
            self._tracker = Tracker()
        # First, so that no row says that a copy is there which is not.
        if self._annotations:
            if seen.size:
                self._annotations.add(seen, faces, tracks)
            if seen.ends:
                self._annotations.end()
        if self._table is None:
            _print(bar, seen, faces)
        else:
            # Half of an annotated video could not be gone on with.
            whole = seen.ends or self._annotations is None
            self._table.write(table.rows(seen, faces, tracks), going_on, whole)
        self._count(seen, faces)
        bar.update(seen.size is not None)
        if time.monotonic() - self._marked > _MARK_EVERY:
            self._mark()

    def _mark(self) -> None:
        """Has the table write what it was given."""
        if self._table is not None:
            self._table.mark()
        self._marked = time.monotonic()

    def _count(self, seen: "DetectedFrame", faces: "list[Face]") -> None:
        self.counts["faces"] += len(faces)
        self.counts["unreadable"] += seen.error is not None
        if seen.size is not None:
            self.counts["pictures"] += 1
            self.counts["empty"] += not faces

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._mark()
        finally:
            if self._annotations:
                self._annotations.__exit__(*error)

    def summary(self) -> str:
        """What was done, in a line."""
        what = [f"{_some(self.counts['pictures'], 'picture')}, {_some(self.counts['faces'], 'face')}"]
        if self.counts["empty"]:
            what.append(f"{_some(self.counts['empty'], 'picture')} without a face")
        if self.counts["unreadable"]:
            what.append(f"{_some(self.counts['unreadable'], 'file')} could not be read")
        return "; ".join(what) + (f" -> {self._table.path}" if self._table else "")


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _progress(found: "list[Input]", every: float | None, start: int) -> "tqdm":
    """A bar over all pictures and frames, where the files say how many there are."""
    from tqdm import tqdm

    from fer_jax.inference.media import video

    counts = [video.count_frames(one.path, every) if one.is_video else 1 for one in found]
    total = sum(counts) if all(counts) else None
    return tqdm(total=total, unit=" pictures", desc="predicting", initial=start, disable=total == 1)


def _print(bar: "tqdm", seen: "DetectedFrame", faces: "list[Face]") -> None:
    """A line for each face of a picture, or for what else is to be said of it."""
    place = seen.source.path if seen.frame is None else f"{seen.source.path} {seen.seconds:.2f} s"
    lines = [] if seen.size is None else [f"{place}: no face"]
    if seen.error is not None:
        lines = [f"error: {seen.error}"]  # which names the file
    if faces:
        lines = [f"{place}: {_describe(face)}" for face in faces]
    for line in lines:
        bar.write(line)


def _describe(face: "Face") -> str:
    left, top, width, height = (round(value) for value in face.box)
    answers = ", ".join(f"{name} {100 * p:.0f} %" for name, p in face.top(3))
    return f"face {width} x {height} at {left}, {top}: {answers}" + (" (unsure)" if face.unsure else "")
