"""Predicts the emotions of faces in images."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fer_jax.data import decoding
from fer_jax.inference import drawing
from fer_jax.inference.classifier import SIZES, Classifier
from fer_jax.inference.detection import cropping, detectors
from fer_jax.inference.structures import DetectedFrame, Detection, Face
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import DEFAULT, find_weights

UNSURE_BELOW = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """The faces of an image.

    Attributes:
      source: path of the image; None for an image from memory.
      width: width of the upright image in pixels.
      height: height of the upright image in pixels.
      faces: faces, largest first; empty if none was detected.
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
        """Returns the upright RGB image, by default read from `source`, with a box and a label for each face.

        Raises:
          PictureError: the image cannot be read.
          ValueError: there is no image, or its size differs from the prediction.
        """
        picture = self.source if image is None else image
        if picture is None:
            raise ValueError("the image was predicted from memory: pass it to draw(image)")
        pixels = decoding.read(picture, "the image")
        if pixels.shape[1::-1] != (self.width, self.height):
            got = " x ".join(map(str, pixels.shape[1::-1]))
            raise ValueError(
                f"the image has {got} pixels, but the predicted one has {self.width} x {self.height}"
            )
        return Image.fromarray(drawing.draw(pixels, self.faces))


class Predictor:
    """Detects faces in images and classifies their emotions. Thread-safe.

    Example::

        predictor = Predictor.load()
        for prediction in predictor(["photo.jpg", "other.png"]):
            for face in prediction.faces:
                print(face.box, face.emotion, face.confidence, face.top(3))

    Attributes:
      classifier: classifies faces.
      detector: detects faces.
      unsure_below: confidence below which a face is unsure. With 0.5, the default, these predictions are by
        the network's own (calibrated) estimate more likely wrong than right.
    """

    def __init__(
        self, classifier: Classifier, detector: detectors.Detector, unsure_below: float = UNSURE_BELOW
    ):
        """Combines a classifier and a detector; see `load`.

        Raises:
          ValueError: `unsure_below` is not in [0, 1].
        """
        if not 0 <= unsure_below <= 1:
            raise ValueError(f"unsure_below {unsure_below}: expected a number from 0 to 1")
        self.classifier, self.detector, self.unsure_below = classifier, detector, unsure_below

    @classmethod
    def load(
        cls,
        source: os.PathLike | str = DEFAULT,
        detector: str = "yunet",
        *,
        margin: float = 1.0,
        any_rotation: bool = False,
        unsure_below: float = UNSURE_BELOW,
        engine: str = "auto",
        batch_sizes: Sequence[int] = SIZES,
    ) -> "Predictor":
        """Loads a predictor from weights.

        Args:
          source: a safetensors file of fer_jax, a run directory, or the name of a bundled network, see
            `pretrained.registry.BUNDLED`.
          detector: 'yunet', 'mediapipe', or 'whole' if each image is one face.
          margin: size of the face crop relative to training.
          any_rotation: whether to also detect faces that are sideways or upside down, at four times the cost.
          unsure_below: see the class.
          engine, batch_sizes: see `Classifier`.

        Raises:
          FileNotFoundError: the weights do not exist.
          DamagedCheckpointError: the weights cannot be read.
          DownloadError: MediaPipe's model is not cached and cannot be downloaded.
          DetectorError: the detector's package is not installed.
          ValueError: the metadata of the weights is invalid, or an argument is out of range.
        """
        weights = find_weights(source)
        options = {} if detector == "whole" else {"margin": margin}
        found = detectors.create(detector, any_rotation=any_rotation, **options)
        return cls(Classifier(LoadedModel(weights), batch_sizes, engine), found, unsure_below)

    def __call__(
        self, images: decoding.Picture | Iterable[decoding.Picture], *, detected: bool = True
    ) -> list[Prediction]:
        """Returns a prediction for each image; classifies all faces together.

        Args:
          images: an image or several images, each as in `detect`; an array uint8 [N, H, W, C] is N images.
          detected: whether to detect faces; False treats each image as one face.

        Raises:
          PictureError: an image cannot be used; the message names it.
        """
        is_one = isinstance(images, decoding.Picture) or not isinstance(images, Iterable)
        several: Any = [images] if is_one and getattr(images, "ndim", 0) != 4 else images
        frames = [
            dataclasses.replace(self.detect(image, f"image {i}", detected=detected), image=None)
            for i, image in enumerate(several)
        ]
        faces = self.classify_frames(frames)
        return [
            Prediction(frame.source, *frame.size, faces=found)
            for frame, found in zip(frames, faces, strict=True)
        ]

    def detect(
        self,
        image: decoding.Picture,
        name: str = "the image",
        *,
        detected: bool = True,
        max_side: int = detectors.MAX_SIDE,
        max_pixels: int = decoding.MAX_PIXELS,
    ) -> DetectedFrame:
        """Decodes an image, detects its faces, and crops them for the classifier.

        Args:
          image: a path, a Pillow image, an encoded image as bytes or as a binary file, or an array uint8
            [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4], of any size. The EXIF orientation is applied.
          name: name for messages, for images without a path.
          detected: whether to detect faces; False treats the image as one face.
          max_side: the detector may downscale the image to this longer side in pixels.
          max_pixels: encoded images that declare more pixels are refused before decoding.

        Raises:
          PictureError: the image cannot be used; the message names it.
        """
        pixels = decoding.read(image, name, max_pixels)
        found = (self.detector if detected else detectors.FullImage()).detect(pixels, max_side)
        side, channels = self.classifier.side, self.classifier.channels
        crops = [cropping.crop(pixels, one, side, channels) for one in found]
        stacked = np.stack(crops) if crops else np.empty((0, side, side, channels), np.uint8)
        source = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        return DetectedFrame(pixels.shape[1::-1], tuple(found), stacked, pixels, source)

    def classify(self, crops: np.ndarray, detections: Sequence[Detection]) -> list[Face]:
        """Classifies the N faces in crops uint8 [N, side, side, channels] and detections, from `detect`."""
        emotions, unsure_below = self.classifier.emotions, self.unsure_below
        rows = self.classifier(crops)
        return [Face(one, emotions, row, unsure_below) for one, row in zip(detections, rows, strict=True)]

    def classify_frames(self, frames: Sequence[DetectedFrame]) -> list[tuple[Face, ...]]:
        """Classifies the faces of several frames together; returns the faces of each."""
        detections = [detection for frame in frames for detection in frame.detections]
        crops = [frame.crops for frame in frames if frame.detections]
        faces = iter(self.classify(np.concatenate(crops), detections) if crops else ())
        return [tuple(itertools.islice(faces, len(frame.detections))) for frame in frames]
