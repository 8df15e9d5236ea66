"""Data structures of inference: boxes, detections, frames, faces, and tracks."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


class Box(NamedTuple):
    """A rectangle in (fractional) pixels of the upright image; it may exceed the image."""

    left: float
    top: float
    width: float
    height: float

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the center."""
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    @property
    def area(self) -> float:
        """Width times height."""
        return self.width * self.height

    def intersection(self, other: "Box") -> float:
        """Returns the area of the intersection."""
        width = min(self.edges[2], other.edges[2]) - max(self.left, other.left)
        height = min(self.edges[3], other.edges[3]) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def overlap(self, other: "Box") -> float:
        """Returns the intersection over union, in [0, 1]; 0 for empty boxes."""
        shared = self.intersection(other)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0

    def scaled(self, factor: float) -> "Box":
        """Returns the box in an image resized by a factor."""
        return Box(*(factor * value for value in self))


@dataclasses.dataclass(frozen=True)
class Detection:
    """A face found by a detector.

    Attributes:
      box: the detector's box.
      score: the detector's confidence, in [0, 1].
      frame: crop for the classifier.
      rotation: counterclockwise rotation of the image that makes the face upright, in degrees: 0, 90, 180, or
        270.
      roll: clockwise roll of the face after `rotation`, in degrees, which the crop corrects.
    """

    box: Box
    score: float
    frame: Box
    rotation: int = 0
    roll: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class DetectedFrame:
    """An image or video frame with its detected faces, or the end of a file, possibly with an error.

    Attributes:
      size: integers (width, height) of the upright image; None without an image.
      detections: the faces, largest first.
      crops: uint8 [N, side, side, channels], the faces as input of the classifier; None without an image.
      image: uint8 [H, W] or [H, W, 3]; None if not kept.
      source: path or name of the file; None for an image from memory.
      frame: frame number in a video; None for an image.
      seconds: time of the frame in seconds; None for an image.
      error: why the file, or the rest of it, cannot be read.
      ends: whether this is the last frame of its file.
    """

    size: Any = None
    detections: tuple[Detection, ...] = ()
    crops: Any = None
    image: Any = None
    source: Any = None
    frame: int | None = None
    seconds: Any = None
    error: str | None = None
    ends: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face and its emotion probabilities.

    Attributes:
      detection: position of the face.
      emotions: class names, in the order of the probabilities.
      probabilities: float64 [K] with sum 1, calibrated if the checkpoint has a temperature.
      unsure_below: confidence below which the prediction is unsure.
    """

    detection: Detection
    emotions: tuple[str, ...]
    probabilities: np.ndarray
    unsure_below: float

    @property
    def box(self) -> Box:
        """The detector's box."""
        return self.detection.box

    @property
    def emotion(self) -> str:
        """The most likely emotion."""
        return self.emotions[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """The probability of `emotion`."""
        return float(self.probabilities.max())

    @property
    def unsure(self) -> bool:
        """Whether the confidence is below `unsure_below`."""
        return self.confidence < self.unsure_below

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """Returns the `count` most likely emotions with their probabilities, most likely first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.emotions[i], float(self.probabilities[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """Returns the face as JSON types, with its box in pixels."""
        return {
            "box": {name: round(value, 1) for name, value in self.box._asdict().items()},
            "detection_score": round(self.detection.score, 4),
            "emotion": self.emotion,
            "confidence": round(self.confidence, 6),
            "unsure": self.unsure,
            "probabilities": {
                name: round(float(p), 6) for name, p in zip(self.emotions, self.probabilities, strict=True)
            },
        }


@dataclasses.dataclass
class Track:
    """A face over time.

    Attributes:
      number: track ID, from 1.
      box: where the face was last seen.
      seconds: when it was last seen.
      probabilities: float64 [K], exponential moving average over time.
    """

    number: int
    box: Box
    seconds: float
    probabilities: np.ndarray

    def smooth(self, face: Face) -> Face:
        """Returns the face with the track's smoothed probabilities."""
        return dataclasses.replace(face, probabilities=self.probabilities)
