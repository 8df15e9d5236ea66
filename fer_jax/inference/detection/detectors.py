"""Face detectors behind one interface: a picture in, where the faces are out.

The networks were trained on faces cut out by a certain rule, and `Detection.frame` is what that rule would
cut out: a square whose side is SCALE times the longer side of the detector's box, its centre lower than the
box's by DOWN of its side. Both are medians over FER2013, measured by `benchmarks/framing.py`.
"""

import abc
import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np

from fer_jax.data.decoding import to_rgb
from fer_jax.inference.detection import assets
from fer_jax.inference.structures import Box, Detection

MAX_SIDE, MAX_SIDE_IN_VIDEO = 1280, 640  # pixels; a frame has few small faces, and many frames come
# Nine of ten faces of FER2013 lean less: what networks saw leaning is left so.
MIN_ROLL = 15.0  # degrees
_SHORTEST = 320  # what is smaller is enlarged


class Detector(abc.ABC):
    """Finds faces."""

    @abc.abstractmethod
    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        """The faces of a picture, the largest first; safe to call from several threads.

        Args:
          image: uint8 [H, W] or [H, W, 3] (RGB), of any size.
          max_side: pixels of its longer side beyond which a detector that has the choice looks at a smaller
            copy, where it finds large faces as well and sooner.
        """


class FullImage(Detector):
    """Takes every picture for one face, as the images of a dataset are: nothing is looked for."""

    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        box = Box(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
        return [Detection(box, 1.0, box)]


class YuNet(Detector):
    """OpenCV's YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y).

    Finds faces from about 10 pixels on, leaning up to about 45 degrees. Fetches its model, 0.2 MB, the
    first time.
    """

    # FER2013's images are as high as YuNet's box, nearly, and have its centre.
    SCALE, DOWN = 0.97, 0.0
    MIN_SCORE = 0.6

    def __init__(self, margin: float = 1.0, min_score: float = MIN_SCORE, min_roll: float = MIN_ROLL):
        """Opens the model.

        Args:
          margin: the frame's side over that of the frames in training.
          min_score: what scores less is no face.
          min_roll: degrees from which on a face that leans is turned upright.

        Raises:
          DownloadError, WrongFileError: see `download.fetch`.
          ValueError: `margin` or `min_score` is out of range.
        """
        _check(margin, min_score)
        self._margin, self._min_roll = margin, min_roll
        path = assets.fetch_yunet()
        model = np.fromfile(path, np.uint8)
        with _quiet():
            self._model = cv2.FaceDetectorYN.create(
                "onnx", model, np.empty(0, np.uint8), (320, 320), min_score
            )
        self._lock = threading.Lock()

    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        small, scale = _rescale(image, max_side)
        bgr = np.ascontiguousarray(to_rgb(small)[..., ::-1])
        with self._lock:
            self._model.setInputSize((bgr.shape[1], bgr.shape[0]))
            _, found = self._model.detect(bgr)
        detections = []
        for row in () if found is None else found.astype(np.float64):
            box, eyes = Box(*(row[:4] / scale).tolist()), row[4:8].reshape(2, 2)
            frame = _frame(box, self.SCALE * self._margin, self.DOWN)
            detections.append(Detection(box, float(row[14]), frame, roll=_roll(*eyes, self._min_roll)))
        return _largest_first(detections)


class MediaPipe(Detector):
    """MediaPipe's BlazeFace of short range (Bazarevsky et al. 2019, arXiv:1907.05047), through the tasks API.

    For faces within two metres of a camera: quick, but it sees the picture at 128 x 128 pixels and
    passes over small faces. Needs the package mediapipe; fetches its model, 0.2 MB, the first time.
    """

    # Its box ends above the eyebrows; FER2013's images begin higher.
    SCALE, DOWN = 1.18, -0.09
    MIN_SCORE = 0.7

    def __init__(self, margin: float = 1.0, min_score: float = MIN_SCORE, min_roll: float = MIN_ROLL):
        """Opens the model; arguments and errors as of `YuNet`.

        Raises:
          DetectorError: mediapipe cannot be loaded; the message says how to install it.
        """
        _check(margin, min_score)
        self._margin, self._min_roll = margin, min_roll
        self._model, self._to_image = assets.open_blazeface(min_score)
        self._lock = threading.Lock()

    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        rgb = np.ascontiguousarray(to_rgb(image))
        with self._lock:
            found = self._model.detect(self._to_image(rgb)).detections
        size = np.array([rgb.shape[1], rgb.shape[0]])
        detections = []
        for one in found:
            at = one.bounding_box
            box = Box(*map(float, (at.origin_x, at.origin_y, at.width, at.height)))
            eyes = [np.array([point.x, point.y]) * size for point in one.keypoints[:2]]
            frame = _frame(box, self.SCALE * self._margin, self.DOWN)
            score = float(one.categories[0].score)
            detections.append(Detection(box, score, frame, roll=_roll(*eyes, self._min_roll)))
        return _largest_first(detections)


class RotatedSearch(Detector):
    """Looks for upright faces in the picture as it is and turned by 90, 180 and 270 degrees.

    For photographs that lie on their side and have lost the note about it. The rotation in which another
    detector is surest of a face is taken for the whole picture. Takes four times as long.
    """

    def __init__(self, detector: Detector):
        self._detector = detector

    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        found = {
            rotation: self._detector.detect(np.rot90(image, rotation // 90), max_side)
            for rotation in (0, 90, 180, 270)
        }
        best = max(found, key=lambda rotation: max((one.score for one in found[rotation]), default=0.0))
        return [_rotated_back(one, best, *image.shape[:2]) for one in found[best]]


DETECTORS: dict[str, type[Detector]] = {"mediapipe": MediaPipe, "whole": FullImage, "yunet": YuNet}


def create(name: str, *, any_rotation: bool = False, **options: Any) -> Detector:
    """The detector `name`, one of `DETECTORS`.

    Args:
      name: of it.
      any_rotation: whether to look for faces that lie on their side or head, too (`RotatedSearch`).
      **options: what its constructor takes.

    Raises:
      ValueError: there is none of that name; the message lists those there are.
      As the detector's constructor.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown face detector {name!r}; there are: {', '.join(DETECTORS)}")
    detector = DETECTORS[name](**options)
    return RotatedSearch(detector) if any_rotation and name != "whole" else detector


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps OpenCV from warning that its new engine has no targets to choose from, which nobody asked for."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _check(margin: float, min_score: float) -> None:
    if not 0.1 <= margin <= 10:
        raise ValueError(f"margin {margin}: expected the frame's side over training's, from 0.1 to 10")
    if not 0 < min_score < 1:
        raise ValueError(f"min_score {min_score}: expected a number between 0 and 1")


def _rescale(image: np.ndarray, max_side: int) -> tuple[np.ndarray, float]:
    """The picture at a size to look for faces in, and its size over the original's."""
    height, width = image.shape[:2]
    scale = float(np.clip(max(height, width), _SHORTEST, max_side)) / max(height, width)
    if scale == 1:
        return image, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=how), scale


def _frame(box: Box, scale: float, down: float) -> Box:
    """The square about a box: its side over the box's longer one, its centre lower by a share of its side."""
    side = scale * max(box.width, box.height)
    x, y = box.center
    return Box(x - side / 2, y - side / 2 + down * side, side, side)


def _roll(left_eye: Iterable[float], right_eye: Iterable[float], least: float) -> float:
    """Degrees by which the line from eye to eye (x, y) leans clockwise, in (-180, 180]; 0 below the least."""
    across, down = np.subtract(right_eye, left_eye)
    degrees = float(np.degrees(np.arctan2(down, across)))
    return degrees if abs(degrees) >= least else 0.0


def _largest_first(detections: list[Detection]) -> list[Detection]:
    return sorted(detections, key=lambda one: -one.box.width * one.box.height)


def _rotated_back(one: Detection, rotation: int, height: int, width: int) -> Detection:
    """What was found in a picture turned by `rotation`, as it lies in the original of the given size."""

    def back(box: Box) -> Box:
        left, top, across, down = box
        return {
            0: box,
            90: Box(width - top - down, left, down, across),
            180: Box(width - left - across, height - top - down, across, down),
            270: Box(top, height - left - across, down, across),
        }[rotation]

    return Detection(back(one.box), one.score, back(one.frame), rotation, one.roll)
