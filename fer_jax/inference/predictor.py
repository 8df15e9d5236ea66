"""The predictor: images in, faces and their emotions out."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fer_jax.data import decoding
from fer_jax.inference.classifier import SIZES, Classifier
from fer_jax.inference.detection import cropping, detectors
from fer_jax.inference.structures import DetectedFrame, Detection, Face, Prediction
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import DEFAULT, find_weights

UNSURE_BELOW = 0.5


class Predictor:
    """Finds the faces in images and classifies their emotions.

    Example::

        predictor = Predictor.load()
        for prediction in predictor(["photo.jpg", "other.png"]):
            for face in prediction.faces:
                print(face.box, face.emotion, face.confidence, face.top(3))

    Safe to use from several threads.

    Attributes:
      classifier: classifies faces.
      detector: finds faces.
      unsure_below: confidence below which a face is marked as unsure. With 0.5, the default, these are the
        answers that by the network's own (calibrated) estimate are more likely wrong than right.
    """

    def __init__(
        self, classifier: Classifier, detector: detectors.Detector, unsure_below: float = UNSURE_BELOW
    ):
        """Combines a classifier and a detector; see `load`.

        Raises:
          ValueError: if `unsure_below` is not in [0, 1].
        """
        if not 0 <= unsure_below <= 1:
            raise ValueError(f"unsure_below {unsure_below}: expected a confidence, 0 to 1")
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
        """Loads a predictor from weights, whose file holds all that preprocessing needs.

        Args:
          source: a safetensors file of fer_jax, a run's directory, or the name of a network that comes with
            the package, see `pretrained.registry.BUNDLED`.
          detector: 'yunet', 'mediapipe', or 'whole' if each image is one face.
          margin: size of the frame around a face relative to training's; 1 is the same.
          any_rotation: also find faces in images that lie on their side or head, at four times the cost.
          unsure_below: see the class.
          engine, batch_sizes: what computes the network, see `Classifier`.

        Raises:
          FileNotFoundError: if there are no such weights.
          DamagedCheckpointError: if the weights cannot be read.
          DownloadError: if MediaPipe's file is not in the cache and there is no network.
          DetectorError: if the detector's package is not installed.
          ValueError: if the file does not say how to use the weights, or an argument is out of range.
        """
        weights = find_weights(source)
        options = {} if detector == "whole" else {"margin": margin}
        found = detectors.create(detector, any_rotation=any_rotation, **options)
        return cls(Classifier(LoadedModel(weights), batch_sizes, engine), found, unsure_below)

    def __call__(
        self, images: decoding.Picture | Iterable[decoding.Picture], *, detected: bool = True
    ) -> list[Prediction]:
        """Returns a prediction for each image, in order; the faces of all are classified together.

        Args:
          images: one image or several, each as `detect` takes it; an array uint8 [N, H, W, C] is N images.
          detected: False takes each image for one face, whatever the detector.

        Raises:
          PictureError: if an image cannot be used; the message names it.
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
        """Decodes an image, finds its faces and crops them for the classifier.

        Args:
          image: a path, a Pillow image, an encoded image as bytes or as a binary file, or an array uint8
            [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4], of any size. EXIF rotation is undone.
          name: what error messages call an image that is not a path.
          detected: False takes the image for one face, whatever the detector.
          max_side: the detector searches a smaller copy if the longer side has more pixels.
          max_pixels: an encoded image that declares more is refused before it is decoded.

        Raises:
          PictureError: if the image cannot be used; the message names it.
        """
        pixels = decoding.read(image, name, max_pixels)
        found = (self.detector if detected else detectors.FullImage()).detect(pixels, max_side)
        side, channels = self.classifier.side, self.classifier.channels
        crops = [cropping.crop(pixels, one, side, channels) for one in found]
        stacked = np.stack(crops) if crops else np.empty((0, side, side, channels), np.uint8)
        source = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        return DetectedFrame(pixels.shape[1::-1], tuple(found), stacked, pixels, source)

    def classify(self, crops: np.ndarray, detections: Sequence[Detection]) -> list[Face]:
        """Classifies faces.

        Args:
          crops: uint8 [N, side, side, channels], from `detect`.
          detections: where the N faces are.
        """
        emotions, unsure_below = self.classifier.emotions, self.unsure_below
        rows = self.classifier(crops)
        return [Face(one, emotions, row, unsure_below) for one, row in zip(detections, rows, strict=True)]

    def classify_frames(self, frames: Sequence[DetectedFrame]) -> list[tuple[Face, ...]]:
        """Classifies the faces of several frames together; returns the faces of each."""
        detections = [detection for frame in frames for detection in frame.detections]
        crops = [frame.crops for frame in frames if frame.detections]
        faces = iter(self.classify(np.concatenate(crops), detections) if crops else ())
        return [tuple(itertools.islice(faces, len(frame.detections))) for frame in frames]
