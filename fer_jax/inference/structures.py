"""What inference passes on: boxes, detections, detected frames, faces with emotions, and predictions."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fer_jax.data import decoding


class Box(NamedTuple):
    """A rectangle in pixels of the upright image, fractions included; it may reach beyond the border."""

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
        """Returns the area that both boxes cover."""
        width = min(self.edges[2], other.edges[2]) - max(self.left, other.left)
        height = min(self.edges[3], other.edges[3]) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def overlap(self, other: "Box") -> float:
        """Returns the intersection over union, in [0, 1]; 0 for boxes without area."""
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
      frame: the part of the image that the classifier sees.
      rotation: degrees to rotate the image counterclockwise so that the face is upright: 0, 90, 180 or 270.
      roll: degrees by which the face, after `rotation`, leans clockwise; its crop is rotated back by them.
    """

    box: Box
    score: float
    frame: Box
    rotation: int = 0
    roll: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class DetectedFrame:
    """An image or video frame with its detected faces; or the end of a file, or the error that ended it.

    Attributes:
      size: (width, height), ints, of the upright image; None where there is no image.
      detections: the faces, largest first.
      crops: uint8 [N, side, side, channels], the faces as the classifier takes them; None without an image.
      image: uint8 [H, W] or [H, W, 3]; None where it was not kept.
      source: str, path or name of the image's file; None for an image from memory.
      frame: frame number in a video; None for an image.
      seconds: float, time at which the frame is shown; None for an image.
      error: why the file, or the rest of it, cannot be read.
      ends: whether it is the last of its file.
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
      detection: where the face is.
      emotions: class names, in the order of the probabilities.
      probabilities: float64 [K], calibrated by the checkpoint's temperature if it has one; they sum to 1.
      unsure_below: the confidence below which the network abstains.
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
        """Returns the most likely emotions and their probabilities, most likely first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.emotions[i], float(self.probabilities[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """Returns the face as JSON types; its box is in pixels."""
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
    """The faces of an image.

    Attributes:
      source: the image's path; None for an image from memory.
      width: of the upright image, in pixels.
      height: of the upright image, in pixels.
      faces: largest first; empty if the detector found none.
    """

    source: str | None
    width: int
    height: int
    faces: tuple[Face, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the prediction as JSON types."""
        return {
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_dict() for face in self.faces],
        }

    def draw(self, image: decoding.Picture | None = None) -> Image.Image:
        """Returns the image in RGB, upright, with a box and a label for each face.

        Args:
          image: the image, as the predictor took it; None reads it from `source`.

        Raises:
          PictureError: if the image cannot be read.
          ValueError: if there is no image, or it has another size than the one that was predicted.
        """
        from fer_jax.inference.output import drawing

        picture = self.source if image is None else image
        if picture is None:
            raise ValueError("the prediction is of an image from memory: give it to draw, as draw(image)")
        pixels = decoding.read(picture, "the image")
        if pixels.shape[1::-1] != (self.width, self.height):
            got = " x ".join(map(str, pixels.shape[1::-1]))
            raise ValueError(f"the image has {got} pixels, the predicted one {self.width} x {self.height}")
        return Image.fromarray(drawing.draw(pixels, self.faces))
