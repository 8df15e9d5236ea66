"""The way from pictures to emotions in one object."""

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fer_jax.data import decoding
from fer_jax.inference.classifier import SIZES, Classifier
from fer_jax.inference.detection import cropping, detectors
from fer_jax.inference.structures import Detection, Face, Prediction
from fer_jax.loaded_model import LoadedModel
from fer_jax.pretrained.registry import DEFAULT, find_weights

UNSURE_BELOW = 0.5


class Predictor:
    """Finds faces in pictures and tells their emotions.

        predictor = Predictor.load()
        for prediction in predictor(["photo.jpg", "other.png"]):
            for face in prediction.faces:
                print(face.box, face.emotion, face.confidence, face.top(3))

    Safe to use from several threads.

    Attributes:
      classifier: tells the emotions of faces.
      detector: finds the faces.
      unsure_below: confidence below which a face is marked as unsure. With 0.5, the default, these are the
        answers that by the network's own (calibrated) estimate are more likely wrong than right.
    """

    def __init__(
        self, classifier: Classifier, detector: detectors.Detector, unsure_below: float = UNSURE_BELOW
    ):
        """Puts the parts together; see `load`.

        Raises:
          ValueError: `unsure_below` is not in [0, 1].
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
        batch_sizes: Sequence[int] = SIZES,
    ) -> "Predictor":
        """A predictor from weights; all that their preprocessing needs is in the file.

        Args:
          source: a safetensors file of fer_jax, a run's directory, or the name of a network that comes with
            the package, see `pretrained.registry.BUNDLED`.
          detector: 'yunet', 'mediapipe', or 'whole' where each picture is one face.
          margin: size of what the network sees over what it saw in training; 1 is the same.
          any_rotation: also find faces in images that lie on their side or head, at four times the cost.
          unsure_below: see the class.
          batch_sizes: that faces are classified in, see `Classifier`.

        Raises:
          FileNotFoundError: there are no such weights.
          DamagedCheckpointError: they cannot be read.
          DownloadError: the detector's file is not in the cache and there is no network.
          DetectorError: the detector's package is not installed.
          ValueError: the file does not say how to use the weights, or another argument is out of range.
        """
        weights = find_weights(source)
        options = {} if detector == "whole" else {"margin": margin}
        found = detectors.create(detector, any_rotation=any_rotation, **options)
        return cls(Classifier(LoadedModel(weights), batch_sizes), found, unsure_below)

    def __call__(
        self, images: decoding.Picture | Iterable[decoding.Picture], *, detected: bool = True
    ) -> list[Prediction]:
        """Faces and emotions of pictures; the faces of all are classified together.

        Args:
          images: one picture or several: paths, Pillow images, or arrays uint8 [H, W], [H, W, 1], [H, W, 3]
            (RGB) or [H, W, 4], of any size; an array uint8 [N, H, W, C] is N pictures.
          detected: False takes each picture for one face, whatever the detector.

        Returns:
          One prediction for each picture, in order.

        Raises:
          PictureError: a picture cannot be used; the message names it.
        """
        detector = self.detector if detected else detectors.FullImage()
        sources, sizes, found, crops = [], [], [], []
        for number, picture in enumerate(_several(images)):
            image = decoding.read(picture, f"picture {number}")
            sources.append(str(picture) if isinstance(picture, str | os.PathLike) else None)
            sizes.append(image.shape[1::-1])
            found.append(detector.detect(image))
            crops.append(self.crop(image, found[-1]))
        faces = iter(self.classify(np.concatenate(crops) if crops else self.crop(None, []), sum(found, [])))
        return [
            Prediction(source, *size, tuple(next(faces) for _ in detections))
            for source, size, detections in zip(sources, sizes, found, strict=True)
        ]

    def crop(self, image: np.ndarray, found: Sequence[Detection]) -> np.ndarray:
        """The faces of a picture as the network takes them.

        Args:
          image: uint8 [H, W] or [H, W, 3].
          found: what the detector found in it.

        Returns:
          uint8 [N, side, side, channels].
        """
        side, channels = self.classifier.side, self.classifier.channels
        faces = [cropping.crop(image, one, side, channels) for one in found]
        return np.stack(faces) if faces else np.empty((0, side, side, channels), np.uint8)

    def classify(self, crops: np.ndarray, found: Sequence[Detection]) -> list[Face]:
        """The emotions of faces that `crop` gave.

        Args:
          crops: uint8 [N, side, side, channels].
          found: where they are, N of them.
        """
        emotions, unsure_below = self.classifier.emotions, self.unsure_below
        rows = self.classifier(crops)
        return [Face(one, emotions, row, unsure_below) for one, row in zip(found, rows, strict=True)]

    def explain(self, crops: np.ndarray) -> np.ndarray:
        """Where in faces the evidence for their likeliest emotion lies (Grad-CAM).

        Args:
          crops: uint8 [N, side, side, channels], N at least 1.

        Returns:
          float32 [N, h, w], 0 or more.
        """
        return self.classifier.explain(crops)


def _several(images: decoding.Picture | Iterable[decoding.Picture]) -> Iterator[decoding.Picture]:
    is_stack = isinstance(images, np.ndarray) and images.ndim == 4
    one = isinstance(images, decoding.Picture) and not is_stack
    return iter([images] if one else images)
