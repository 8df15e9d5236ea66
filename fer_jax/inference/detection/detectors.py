"""Face detectors behind one interface: an image in, the detected faces out.

The networks were trained on faces cropped by a certain rule, which `Detection.frame` follows: a square whose
side is SCALE times the longer side of the detector's box, with its center below the box's by DOWN of that
side. Both are medians over FER2013, measured by `benchmarks/framing.py`.
"""

import abc
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from fer_jax.data.decoding import to_rgb
from fer_jax.inference.detection import assets
from fer_jax.inference.structures import Box, Detection

MAX_SIDE, MAX_SIDE_IN_VIDEO = 1280, 640  # pixels; a video has many frames and few small faces
# Nine of ten faces of FER2013 lean less: the networks have seen these as they lean.
MIN_ROLL = 15.0  # degrees
_MIN_SIDE = 320  # smaller images are enlarged
_Row = tuple[Box, float, np.ndarray, np.ndarray]


class Detector(abc.ABC):
    """Finds faces."""

    @abc.abstractmethod
    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        """Returns the faces of an image, largest first; safe to call from several threads.

        Args:
          image: uint8 [H, W] or [H, W, 3] (RGB), of any size.
          max_side: if its longer side has more pixels, a detector may search a smaller copy, which is faster
            and finds large faces as well.
        """

    def close(self) -> None:  # noqa: B027
        """Frees what the detector holds, after which it cannot be used."""


class FullImage(Detector):
    """Takes every image for one face, as the images of a dataset are."""

    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        box = Box(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
        return [Detection(box, 1.0, box)]


class _NetworkDetector(Detector):
    """What detectors that find boxes and eyes by a network have in common."""

    SCALE: float
    DOWN: float
    MIN_SCORE: float

    def __init__(self, margin: float = 1.0, min_score: float | None = None, min_roll: float = MIN_ROLL):
        """Opens the model.

        Args:
          margin: the frame's side relative to training's.
          min_score: detections that score less are dropped; None for the detector's default.
          min_roll: degrees from which on a leaning face is rotated upright.

        Raises:
          DownloadError, WrongFileError: see `download.fetch`.
          DetectorError: if the detector's package cannot be loaded.
          ValueError: if `margin` or `min_score` is out of range.
        """
        min_score = self.MIN_SCORE if min_score is None else min_score
        if not 0.1 <= margin <= 10:
            raise ValueError(f"margin {margin}: expected the frame's side over training's, from 0.1 to 10")
        if not 0 < min_score < 1:
            raise ValueError(f"min_score {min_score}: expected a number between 0 and 1")
        self._margin, self._min_roll = margin, min_roll
        self._lock = threading.Lock()
        self._open(min_score)

    @abc.abstractmethod
    def _open(self, min_score: float) -> None: ...

    @abc.abstractmethod
    def _find(self, image: np.ndarray, max_side: int) -> Iterator[_Row]:
        """Yields box, score, and the eyes (x, y) from left to right of each face."""

    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        found = []
        for box, score, left_eye, right_eye in self._find(image, max_side):
            side = self.SCALE * self._margin * max(box.width, box.height)
            x, y = box.center
            frame = Box(x - side / 2, y - side / 2 + self.DOWN * side, side, side)
            across, down = right_eye - left_eye
            roll = float(np.degrees(np.arctan2(down, across)))
            found.append(Detection(box, score, frame, roll=roll if abs(roll) >= self._min_roll else 0.0))
        return sorted(found, key=lambda one: -one.box.area)


class YuNet(_NetworkDetector):
    """OpenCV's YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y).

    Finds faces from about 10 pixels on, leaning up to about 45 degrees. Its model comes with the package.
    """

    # FER2013's images are nearly as high as YuNet's box, and have its center.
    SCALE, DOWN, MIN_SCORE = 0.97, 0.0, 0.6

    def _open(self, min_score: float) -> None:
        model = np.fromfile(assets.YUNET, np.uint8)
        with _quiet():
            size, config = (320, 320), np.empty(0, np.uint8)
            self._model = cv2.FaceDetectorYN.create("onnx", model, config, size, min_score)

    def _find(self, image: np.ndarray, max_side: int) -> Iterator[_Row]:
        small, scale = _rescale(image, max_side)
        bgr = np.ascontiguousarray(to_rgb(small)[..., ::-1])
        with self._lock:
            self._model.setInputSize((bgr.shape[1], bgr.shape[0]))
            _, found = self._model.detect(bgr)
        for row in () if found is None else found.astype(np.float64):
            yield Box(*(row[:4] / scale).tolist()), float(row[14]), row[4:6], row[6:8]


class MediaPipe(_NetworkDetector):
    """MediaPipe's short-range BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047), through the tasks API.

    For faces within two meters of a camera: fast, but it sees the image at 128 x 128 pixels and misses small
    faces. Needs the package mediapipe; downloads its model, 0.2 MB, the first time.
    """

    # Its box ends above the eyebrows; FER2013's images begin higher.
    SCALE, DOWN, MIN_SCORE = 1.18, -0.09, 0.7

    def _open(self, min_score: float) -> None:
        self._model, self._to_image = assets.open_blazeface(min_score)

    def close(self) -> None:
        self._model.close()

    def _find(self, image: np.ndarray, max_side: int) -> Iterator[_Row]:
        image = np.ascontiguousarray(to_rgb(image))
        with self._lock:
            found = self._model.detect(self._to_image(image)).detections
        size = np.array([image.shape[1], image.shape[0]])
        for one in found:
            at = one.bounding_box
            box = Box(*map(float, (at.origin_x, at.origin_y, at.width, at.height)))
            eyes = [np.array([point.x, point.y]) * size for point in one.keypoints[:2]]
            yield box, float(one.categories[0].score), eyes[0], eyes[1]


class RotatedSearch(Detector):
    """Searches the image as it is and rotated by 90, 180 and 270 degrees; takes four times as long.

    For photographs that lie on their side and have lost their EXIF orientation. The rotation in which another
    detector has its best score is taken for the whole image.
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

    def close(self) -> None:
        self._detector.close()


DETECTORS: dict[str, type[Detector]] = {"mediapipe": MediaPipe, "whole": FullImage, "yunet": YuNet}


def create(name: str, *, any_rotation: bool = False, **options: Any) -> Detector:
    """Returns the detector `name`, one of `DETECTORS`.

    Args:
      name: of the detector.
      any_rotation: whether to also find faces that lie on their side or head (`RotatedSearch`).
      **options: arguments of its constructor.

    Raises:
      ValueError: if there is no such detector; the message lists those there are.
      As the detector's constructor.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown face detector {name!r}; there are: {', '.join(DETECTORS)}")
    detector = DETECTORS[name](**options)
    return RotatedSearch(detector) if any_rotation and name != "whole" else detector


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses OpenCV's warning that its new engine has no targets to choose from."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _rescale(image: np.ndarray, max_side: int) -> tuple[np.ndarray, float]:
    """Returns the image at the size to search, and that size over the original's."""
    height, width = image.shape[:2]
    scale = float(np.clip(max(height, width), _MIN_SIDE, max_side)) / max(height, width)
    if scale == 1:
        return image, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=how), scale


def _rotated_back(one: Detection, rotation: int, height: int, width: int) -> Detection:
    """Returns what was found in a rotated image as it lies in the original of the given size."""

    def back(box: Box) -> Box:
        for turns in range(rotation // 90, 0, -1):
            side = width if turns % 2 else height  # of the image with one turn less
            box = Box(side - box.top - box.height, box.left, box.height, box.width)
        return box

    return Detection(back(one.box), one.score, back(one.frame), rotation, one.roll)
