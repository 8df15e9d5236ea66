"""Analyses of a visitor's images: all that the app keeps of them, in the visitor's session."""

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.data.decoding import PictureError
from fer_jax.inference.app import uploads
from fer_jax.inference.app.model_choice import LOCK
from fer_jax.inference.media.tracking import Track
from fer_jax.inference.output import drawing
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import DetectedFrame, Face

_SHOWN = (480, 1280)  # pixels of the longer side of what is shown
_KEPT = "analyses"  # in the session


@dataclasses.dataclass(eq=False)
class Analysis:
    """The faces of an image.

    Attributes:
      frame: of the image; its `image` is uint8 [H, W, 3] with boxes and labels, in the size in which it is
        shown. If the image cannot be used, `error` says why.
      faces: largest first.
      maps: Grad-CAM of the faces that are shown, once it was asked for.
    """

    frame: DetectedFrame
    faces: Sequence[Face] = ()
    maps: np.ndarray | None = None


def analyze(name: str, image: bytes | np.ndarray, predictor: Predictor, detected: bool = True) -> Analysis:
    """Finds the faces of an image and classifies them.

    Args:
      name: of the image.
      image: encoded, or uint8 [H, W] or [H, W, 3].
      predictor: finds and classifies.
      detected: False takes the image for one face.
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
    """Draws as `drawing.draw_tracks`, on an image in the size in which it is shown."""
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
    """Returns the wanted analyses, made unless the session holds them; it forgets all others.

    Args:
      session: the visitor's `st.session_state`.
      wanted: a function that makes each analysis, by what it depends on.
    """
    known = session.get(_KEPT, {})
    session[_KEPT] = {key: known[key] if key in known else make() for key, make in wanted.items()}
    return list(session[_KEPT].values())
