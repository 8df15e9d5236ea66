"""Emotions over time: the spans in which each face of a video shows an emotion, and a figure of them."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fer_jax import io_utils, plotting
from fer_jax.inference.media.tracking import Track
from fer_jax.inference.output.drawing import COLORS
from fer_jax.inference.structures import DetectedFrame, Face

_MAX_GAP = 1.0  # seconds between frames beyond which a face counts as out of sight
_FIRST_STEP = 0.04  # seconds that a face is shown for which is seen in one frame only
_MAX_TRACKS = 20  # in a figure, those seen longest
UNSURE_ALPHA = 0.35  # of spans


@dataclasses.dataclass
class Span:
    """A time in which a face shows one emotion, smoothed as `Track` does.

    Attributes:
      source: path or name of the video.
      track: track ID of the face.
      emotion: the emotion.
      unsure: whether the network is unsure of it.
      start: of the span, in seconds.
      end: of the span, in seconds.
    """

    source: str
    track: int
    emotion: str
    unsure: bool
    start: float
    end: float


class Timeline:
    """Collects the spans of videos, frame by frame.

    Attributes:
      spans: of all tracks, in the order in which they begin.
    """

    def __init__(self) -> None:
        """Begins without spans."""
        self.spans: list[Span] = []
        # Of each track, by source and ID: its last span, when it was last seen, and the step before that.
        self._last: dict[tuple[str, int], tuple[Span, float, float]] = {}

    def add(self, frame: DetectedFrame, faces: Sequence[Face], tracks: Sequence[Track]) -> None:
        """Adds a frame of a video; an image, whose faces have no tracks, changes nothing.

        Args:
          frame: with its source and time.
          faces: of the frame.
          tracks: of the faces.
        """
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
        """Writes a figure with a line per track, colored by emotion; unsure spans are pale.

        Args:
          path: ending in .png, .svg or .pdf.

        Raises:
          OSError: if it cannot be written.
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
            axis.set_title(
                f"The {len(tracks)} of {count} faces that are seen longest", loc="left", fontsize=10
            )
        elif not tracks:
            axis.set_title("No face found", loc="left", fontsize=10)
        figure.savefig(io_utils.partial(path), format=path.suffix[1:].lower(), dpi=150)
        io_utils.move_into_place(io_utils.partial(path), path)


def longest(spans: Iterable[Span], count: int = _MAX_TRACKS) -> list[tuple[str, int]]:
    """Returns source and track ID of the `count` tracks that are seen longest, in the order of their IDs."""
    seconds: Any = collections.Counter()
    order = {}
    for one in spans:
        key = one.source, one.track
        order.setdefault(key, len(order))
        seconds[key] += one.end - one.start
    return sorted((key for key, _ in seconds.most_common(count)), key=order.__getitem__)
