"""A picture of a visitor and what was found in it: all that the app keeps of it, in the visitor's session."""

import csv
import dataclasses
import io
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.inference import drawing
from fer_jax.inference.app_models import TURN
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.results import Face
from fer_jax.inference.uploads import UploadError

_SHOWN = (480, 1280)  # pixels of the longer side of what is shown
_KEPT = "analyses"  # in the session

# As the command line's table has them.
_BOX = ("left", "top", "width", "height")
COLUMNS = ("source", "seconds", "status", "face", "track", *_BOX, "emotion", "confidence", "unsure")


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in a picture.

    Attributes:
      name: of the picture.
      image: uint8 [H, W, 3], with boxes and labels, as large as it is shown; None where there is an error.
      faces: the largest first.
      crops: uint8 [N, side, side, channels], as the network saw them.
      error: why the picture cannot be used, in words for a visitor, or ''.
    """

    name: str
    image: np.ndarray | None = None
    faces: tuple[Face, ...] = ()
    crops: np.ndarray | None = None
    error: str = ""


def analyse(name: str, read: Callable[[], np.ndarray], predictor: Predictor) -> Analysis:
    """Finds the faces of a picture and their emotions.

    Args:
      name: of the picture.
      read: gives it, uint8 [H, W] or [H, W, 3], or raises `UploadError`.
      predictor: looks at it.
    """
    with TURN:
        try:
            image = read()
        except UploadError as error:
            return Analysis(name, error=str(error))
        found = predictor.detector.detect(image)
        crops = predictor.crop(image, found)
        faces = predictor.classify(crops, found)
        return Analysis(name, draw(image, faces), tuple(faces), crops)


def draw(image: np.ndarray, faces: Sequence[Face], numbers: Sequence[int] | None = None) -> np.ndarray:
    """`drawing.draw` on a picture of the size in which it is shown."""
    longer = max(image.shape[:2])
    scale = np.clip(longer, *_SHOWN) / longer
    if scale != 1:
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=how)
        faces = [_scaled(face, scale) for face in faces]
    return drawing.draw(image, faces, numbers)


def _scaled(face: Face, scale: float) -> Face:
    box = type(face.box)(*(scale * value for value in face.box))
    return dataclasses.replace(face, detection=dataclasses.replace(face.detection, box=box))


def remember(
    session: MutableMapping[str, Any], wanted: Mapping[Hashable, Callable[[], Analysis]]
) -> list[Analysis]:
    """The analyses that are wanted, made where the session does not hold them; it forgets all others.

    Args:
      session: the visitor's `st.session_state`.
      wanted: what makes each, by what it depends on.
    """
    known = session.get(_KEPT, {})
    session[_KEPT] = {key: known[key] if key in known else make() for key, make in wanted.items()}
    return list(session[_KEPT].values())


def rows(analysis: Analysis) -> list[dict[str, Any]]:
    """What the table says of a picture: a row for a face, for a picture without one, for an error."""
    if analysis.error:
        return [{"source": analysis.name, "status": "error", "error": analysis.error}]
    if not analysis.faces:
        return [{"source": analysis.name, "status": "no_face"}]
    return [
        face_row(face, source=analysis.name, status="face", face=number)
        for number, face in enumerate(analysis.faces, 1)
    ]


def face_row(found: Face, **where: Any) -> dict[str, Any]:
    """What the table says of a face: where it is from, and what was found."""
    as_json = found.to_dict()
    probabilities = {f"p_{emotion}": p for emotion, p in as_json["probabilities"].items()}
    kept = {key: as_json[key] for key in ("emotion", "confidence", "unsure")}
    return where | as_json["box"] | kept | probabilities


def to_csv(table: Sequence[Mapping[str, Any]], emotions: Sequence[str]) -> bytes:
    """A table as a CSV file in UTF-8, with the columns that some row has."""
    names = [*COLUMNS, *(f"p_{emotion}" for emotion in emotions), "error"]
    used = [name for name in names if any(name in row for row in table)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()
