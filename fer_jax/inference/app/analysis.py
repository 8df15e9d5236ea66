"""A picture of a visitor and what was found in it: all that the app keeps of it, in the visitor's session."""

import csv
import dataclasses
import io
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.inference.app.model_choice import TURN
from fer_jax.inference.app.uploads import UploadError
from fer_jax.inference.output import drawing, table
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import Face

_SHOWN = (480, 1280)  # pixels of the longer side of what is shown
_KEPT = "analyses"  # in the session


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
    """What the table says of a picture, as the command line's table does."""
    place = {"source": analysis.name}
    return (
        [table.error_row(place, analysis.error)] if analysis.error else table.face_rows(place, analysis.faces)
    )


def to_csv(found: Sequence[Mapping[str, Any]], emotions: Sequence[str]) -> bytes:
    """Rows as a CSV file in UTF-8, with the columns that some row has."""
    used = [name for name in table.columns(emotions) if any(name in row for row in found)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue().encode()
