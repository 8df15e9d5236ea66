"""What a prediction is: pictures, faces in them, and how likely each emotion is."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


class Box(NamedTuple):
    """A rectangle in pixels of the upright picture, fractions included; it may reach beyond the border."""

    left: float
    top: float
    width: float
    height: float

    @property
    def center(self) -> tuple[float, float]:
        """(x, y)."""
        return self.left + self.width / 2, self.top + self.height / 2

    def overlap(self, other: "Box") -> float:
        """Intersection over union, in [0, 1]; 0 for boxes without area."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        shared = max(width, 0.0) * max(height, 0.0)
        union = self.width * self.height + other.width * other.height - shared
        return shared / union if union > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Detection:
    """Where a detector sees a face.

    Attributes:
      box: as the detector draws it.
      score: how sure it is, in [0, 1].
      frame: what of the picture the network is to see.
      rotation: by how many degrees, counterclockwise, the picture has to be turned for the face to stand
        upright: 0, 90, 180 or 270.
      roll: degrees by which the face so turned leans clockwise; its frame is turned back by them.
    """

    box: Box
    score: float
    frame: Box
    rotation: int = 0
    roll: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face and its emotions.

    Attributes:
      detection: where it is.
      emotions: names of the classes, in the order of the probabilities.
      probabilities: float64 [K], calibrated by the checkpoint's temperature where it has one; sum to 1.
      unsure_below: the confidence below which no answer should be trusted.
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
        """The likeliest one."""
        return self.emotions[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return float(self.probabilities.max())

    @property
    def unsure(self) -> bool:
        """Whether the network should rather abstain."""
        return self.confidence < self.unsure_below

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The likeliest emotions with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.emotions[i], float(self.probabilities[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: box in pixels, detector's score, emotion, confidence, unsure, probabilities."""
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


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """A picture's faces.

    Attributes:
      source: the picture's path, None for one from memory.
      width, height: of the upright picture, in pixels.
      faces: the largest first; none where the detector sees none.
    """

    source: str | None
    width: int
    height: int
    faces: tuple[Face, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_dict() for face in self.faces],
        }
