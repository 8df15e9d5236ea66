"""Analyzes images; the app keeps only the analyses, in the visitor's session."""

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.data.decoding import PictureError
from fer_jax.inference import drawing
from fer_jax.inference.app import uploads
from fer_jax.inference.app.model_choice import LOCK
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import DetectedFrame, Face, Track

_SHOWN = (480, 1280)  # longer side of shown images, in pixels
_KEPT = "analyses"  # in the session


@dataclasses.dataclass(eq=False)
class Analysis:
    """The faces of an image."""

    # The image; its `image` is uint8 [H, W, 3] with boxes and labels, at the shown size. If the image cannot
    # be used, `error` says why.
    frame: DetectedFrame
    faces: Sequence[Face] = ()  # largest first
    maps: np.ndarray | None = None  # Grad-CAM of the shown faces, once requested


def analyze(name: str, image: bytes | np.ndarray, predictor: Predictor, detected: bool = True) -> Analysis:
    """Detects and classifies the faces in an encoded image, or one uint8 [H, W] or [H, W, 3].

    If not `detected`, the image is treated as one face.
    """
    with LOCK:
        try:
            if isinstance(image, bytes):
                uploads.check_size(image, uploads.MEGABYTES, name)
            frame = predictor.detect(image, name, detected=detected, max_pixels=uploads.MAX_PIXELS)
        except (uploads.UploadError, PictureError) as error:
            return Analysis(DetectedFrame(source=name, error=str(error)))
        faces = predictor.classify(frame.crops, frame.detections)
        return Analysis(dataclasses.replace(frame, source=name, image=draw(frame.image, faces)), faces)


def draw(image: np.ndarray, faces: Sequence[Face], tracks: Sequence[Track] = ()) -> np.ndarray:
    """Draws faces as `drawing.draw_tracks`, at the shown size."""
    longer = max(image.shape[:2])
    scale = np.clip(longer, *_SHOWN) / longer
    if scale != 1:
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=how)
        boxes = [dataclasses.replace(face.detection, box=face.box.scaled(scale)) for face in faces]
        faces = [dataclasses.replace(face, detection=box) for face, box in zip(faces, boxes, strict=True)]
    return drawing.draw_tracks(image, faces, tracks)


def remember(
    session: MutableMapping[Any, Any], wanted: Mapping[Any, Callable[[], Analysis]]
) -> list[Analysis]:
    """Returns the wanted analyses, from the visitor's session if possible; drops all others from it.

    `wanted` has functions that make the analyses, by key.
    """
    known = session.get(_KEPT, {})
    session[_KEPT] = {key: known[key] if key in known else make() for key, make in wanted.items()}
    return list(session[_KEPT].values())
