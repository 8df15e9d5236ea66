"""Collects and plots the emotions of tracked faces over time."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fer_jax import io_utils, plotting
from fer_jax.inference.drawing import COLORS
from fer_jax.inference.structures import DetectedFrame, Face, Track

_MAX_GAP = 1.0  # seconds after which an unseen face counts as gone
_FIRST_STEP = 0.04  # duration in seconds of a face in a single frame
_MAX_TRACKS = 20  # longest tracks in a figure
UNSURE_ALPHA = 0.35  # opacity of unsure spans


@dataclasses.dataclass
class Span:
    """A time span, in seconds, in which a face has one emotion, smoothed as in `Track`."""

    source: str  # path or name of the video
    track: int
    emotion: str
    unsure: bool
    start: float
    end: float


class Timeline:
    """Collects the spans of videos, frame by frame."""

    def __init__(self) -> None:
        self.spans: list[Span] = []  # of all tracks, by start
        # By source and track ID: the last span, the time last seen, and the previous step.
        self._last: dict[tuple[str, int], tuple[Span, float, float]] = {}

    def add(self, frame: DetectedFrame, faces: Sequence[Face], tracks: Sequence[Track]) -> None:
        """Adds a frame of a video, its faces and their tracks; images, which have no tracks, are ignored."""
        for face, track in zip(faces, tracks, strict=True) if tracks else ():
            smooth, now, key = track.smooth(face), frame.seconds, (frame.source, track.number)
            span, seen, step = self._last.get(key, (None, now, _FIRST_STEP))
            if span and now - seen <= _MAX_GAP:
                span.end, step = now, now - seen
            else:
                span = None
            if span is None or (span.emotion, span.unsure) != (smooth.emotion, smooth.unsure):
                span = Span(*key, smooth.emotion, smooth.unsure, now, now)
                self.spans.append(span)
            span.end = now + step
            self._last[key] = span, now, step

    def save(self, path: os.PathLike | str) -> None:
        """Writes a figure (.png, .svg, or .pdf) with a line per track, colored by emotion; unsure is pale.

        Raises:
          OSError: the file cannot be written.
        """
        from matplotlib.patches import Patch

        path, tracks = Path(path), longest(self.spans)
        figure, axis = plotting.new_figure(9, 1.6 + 0.32 * max(1, len(tracks)))
        several = len({source for source, _ in tracks}) > 1
        for line, (source, track) in enumerate(tracks):
            for one in self.spans:
                if (one.source, one.track) == (source, track):
                    alpha = UNSURE_ALPHA if one.unsure else 1
                    span = [(one.start, one.end - one.start)]
                    axis.broken_barh(span, (line - 0.4, 0.8), facecolor=COLORS[one.emotion], alpha=alpha)
        names = [
            f"{Path(source).name}, face {track}" if several else f"face {track}" for source, track in tracks
        ]
        axis.set_yticks(range(len(tracks)), names)
        axis.margins(x=0)
        axis.set(xlabel="seconds", ylim=(max(1, len(tracks)) - 0.5, -0.5))
        shown = {one.emotion for one in self.spans}
        patches = [Patch(color=color, label=name) for name, color in COLORS.items() if name in shown]
        if any(one.unsure for one in self.spans):
            patches.append(Patch(color=COLORS["neutral"], alpha=UNSURE_ALPHA, label="unsure"))
        if patches:
            figure.legend(handles=patches, loc="outside upper center", ncols=len(patches), frameon=False)
        count = len({(one.source, one.track) for one in self.spans})
        if count > len(tracks):
            axis.set_title(f"The longest {len(tracks)} of {count} tracks", loc="left", fontsize=10)
        elif not tracks:
            axis.set_title("No face found", loc="left", fontsize=10)
        figure.savefig(io_utils.partial(path), format=path.suffix[1:].lower(), dpi=150)
        io_utils.move_into_place(io_utils.partial(path), path)


def longest(spans: Iterable[Span], count: int = _MAX_TRACKS) -> list[tuple[str, int]]:
    """Returns source and track ID of the `count` longest tracks, sorted by ID."""
    seconds: Any = collections.Counter()
    order = {}
    for one in spans:
        key = one.source, one.track
        order.setdefault(key, len(order))
        seconds[key] += one.end - one.start
    return sorted((key for key, _ in seconds.most_common(count)), key=order.__getitem__)
