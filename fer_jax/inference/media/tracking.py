"""Tracks faces in a video and smooths their probabilities over time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.inference.structures import Box, Face, Track

_MIN_OVERLAP = 0.25  # minimum intersection over union of boxes in successive frames
_MAX_GAP = 1.0  # seconds after which an unseen face loses its track ID
_TIME_CONSTANT = 0.5  # seconds until the weight of an observation decays to 1 / e


class Tracker:
    """Assigns track IDs to the faces of a video and smooths their probabilities.

    Matches faces to tracks by maximizing the sum of the intersections over union (Hungarian algorithm, as in
    SORT, Bewley et al. 2016, arXiv:1602.00763, without its motion model); unmatched faces start new tracks.
    """

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Removes all tracks; IDs restart at 1."""
        self._tracks: list[Track] = []
        self._count = 0

    def update(self, faces: Sequence[Face], seconds: float) -> list[Track]:
        """Returns the track of each face of the next frame, whose time is not before the previous one's."""
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= _MAX_GAP]
        known = self._match([face.box for face in faces])
        found = []
        for index, face in enumerate(faces):
            track = known.get(index)
            if track is None:
                self._count += 1
                track = Track(self._count, face.box, seconds, np.array(face.probabilities, np.float64))
                self._tracks.append(track)
            else:
                kept = np.exp(-(seconds - track.seconds) / _TIME_CONSTANT)
                track.probabilities = kept * track.probabilities + (1 - kept) * face.probabilities
                track.box, track.seconds = face.box, seconds
            found.append(dataclasses.replace(track))
        return found

    def _match(self, boxes: Sequence[Box]) -> dict[int, Track]:
        if not (self._tracks and boxes):
            return {}
        overlaps = np.array([[box.overlap(track.box) for track in self._tracks] for box in boxes])
        # Set to 0, so that insufficient overlaps cannot displace a better match.
        overlaps[overlaps < _MIN_OVERLAP] = 0
        from scipy.optimize import linear_sum_assignment  # slow to import, and not needed for images

        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return {row: self._tracks[column] for row, column in pairs if overlaps[row, column]}

    def state(self) -> dict[str, Any]:
        """Returns the state as JSON types, for `restore`."""
        tracks = [vars(track) | {"probabilities": track.probabilities.tolist()} for track in self._tracks]
        return {"count": self._count, "tracks": tracks}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Tracker":
        """Returns a tracker with a state from `state`."""
        tracker = cls()
        tracker._count = state["count"]
        for fields in state["tracks"]:
            box, probabilities = Box(*fields["box"]), np.array(fields["probabilities"])
            tracker._tracks.append(Track(**fields | {"box": box, "probabilities": probabilities}))
        return tracker
