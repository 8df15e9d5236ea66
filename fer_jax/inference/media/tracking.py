"""Which face of a frame is which of the frames before, and what it showed over time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from fer_jax.inference.structures import Box

_MIN_OVERLAP = 0.25  # of two boxes of one face in successive frames, intersection over union
_MAX_GAP = 1.0  # seconds for which a face may be out of sight and keep its number
_MEMORY = 0.5  # seconds after which an observation weighs 1 / e


@dataclasses.dataclass
class Track:
    """A face over time.

    Attributes:
      number: its own, from 1.
      box: where it was last seen.
      seconds: when.
      probabilities: float64 [K], the average over what was seen, older observations weighing less.
    """

    number: int
    box: Box
    seconds: float
    probabilities: np.ndarray


class Tracker:
    """Numbers the faces of a video and smooths their probabilities.

    The faces of a frame go to the faces known so that the sum of the boxes' overlaps (intersection over
    union) is greatest (Hungarian method, as in SORT, Bewley et al. 2016, arXiv:1602.00763, without its
    motion model); what overlaps with none is new.
    """

    def __init__(self):
        self._tracks: list[Track] = []
        self._count = 0

    def update(
        self, boxes: Sequence[Box], probabilities: Sequence[np.ndarray], seconds: float
    ) -> list[Track]:
        """The track of each face of the next frame.

        Args:
          boxes: of its faces.
          probabilities: of them, each float64 [K].
          seconds: when it is shown; not before the frame before.
        """
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= _MAX_GAP]
        known = self._match(boxes)
        found = []
        for place, (box, seen) in enumerate(zip(boxes, probabilities, strict=True)):
            track = known.get(place)
            if track is None:
                self._count += 1
                track = Track(self._count, box, seconds, np.array(seen, np.float64))
                self._tracks.append(track)
            else:
                kept = np.exp(-(seconds - track.seconds) / _MEMORY)
                track.probabilities = kept * track.probabilities + (1 - kept) * seen
                track.box, track.seconds = box, seconds
            found.append(dataclasses.replace(track))
        return found

    def _match(self, boxes: Sequence[Box]) -> dict[int, Track]:
        if not (self._tracks and boxes):
            return {}
        overlaps = np.array([[box.overlap(track.box) for track in self._tracks] for box in boxes])
        # What overlaps too little counts as nothing, so that it cannot take a better match away.
        overlaps[overlaps < _MIN_OVERLAP] = 0
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return {row: self._tracks[column] for row, column in pairs if overlaps[row, column]}

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here, as JSON has it."""
        tracks = [
            {
                **dataclasses.asdict(track),
                "box": list(track.box),
                "probabilities": track.probabilities.tolist(),
            }
            for track in self._tracks
        ]
        return {"count": self._count, "tracks": tracks}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Tracker":
        """A tracker that goes on from what `state` gave."""
        tracker = cls()
        tracker._count = state["count"]
        for fields in state["tracks"]:
            box, seen = Box(*fields["box"]), np.array(fields["probabilities"])
            tracker._tracks.append(Track(fields["number"], box, fields["seconds"], seen))
        return tracker
