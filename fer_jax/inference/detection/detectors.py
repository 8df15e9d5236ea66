"""Face detectors with a common interface.

`Detection.frame` follows the cropping of the training data: a square whose side is SCALE times the longer
side of the detector's box, and whose center is DOWN times this side below the center of the box. Both are
medians over FER2013, measured by `benchmarks/framing.py`.
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

MAX_SIDE, MAX_SIDE_IN_VIDEO = 1280, 640  # pixels; smaller in videos, for speed
# Nine of ten faces of FER2013 lean less, so networks are trained for it.
MIN_ROLL = 15.0  # degrees
_MIN_SIDE = 320  # smaller images are enlarged
_Row = tuple[Box, float, np.ndarray, np.ndarray]


class Detector(abc.ABC):
    """A face detector."""

    @abc.abstractmethod
    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        """Returns the faces in an image, largest first. Thread-safe.

        Args:
          image: uint8 [H, W] or [H, W, 3] (RGB), of any size.
          max_side: detectors may downscale the image to this longer side in pixels, for speed.
        """


class FullImage(Detector):
    """Treats every image as one face, as in datasets."""

    def detect(self, image: np.ndarray, max_side: int = MAX_SIDE) -> list[Detection]:
        box = Box(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
        return [Detection(box, 1.0, box)]


class _NetworkDetector(Detector):
    """Base of detectors that find boxes and eyes with a network."""

    SCALE: float
    DOWN: float
    MIN_SCORE: float

    def __init__(self, margin: float = 1.0, min_roll: float = MIN_ROLL):
        """Opens the model.

        Args:
          margin: side of the frame relative to training.
          min_roll: minimum roll, in degrees, for rotating a face upright.

        Raises:
          DownloadError, WrongFileError: as `download.fetch`.
          DetectorError: the detector's package cannot be imported.
          ValueError: `margin` is out of range.
        """
        if not 0.1 <= margin <= 10:
            raise ValueError(f"margin {margin}: expected a number from 0.1 to 10")
        self._margin, self._min_roll = margin, min_roll
        self._lock = threading.Lock()
        self._open()

    @abc.abstractmethod
    def _open(self) -> None: ...

    @abc.abstractmethod
    def _find(self, image: np.ndarray, max_side: int) -> Iterator[_Row]:
        """Yields box, score, and eyes (x, y) from left to right for each face."""

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

    Detects faces of at least about 10 pixels, with a roll of up to about 45 degrees. Its model is bundled.
    """

    # FER2013's images have nearly the height, and the center, of YuNet's box.
    SCALE, DOWN, MIN_SCORE = 0.97, 0.0, 0.6

    def _open(self) -> None:
        model = np.fromfile(assets.YUNET, np.uint8)
        with _quiet():
            size, config = (320, 320), np.empty(0, np.uint8)
            self._model = cv2.FaceDetectorYN.create("onnx", model, config, size, self.MIN_SCORE)

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

    For faces within two meters of the camera: fast, but its input of 128 x 128 pixels misses small faces.
    Needs the package mediapipe; downloads its model (0.2 MB) on first use.
    """

    # Its box ends at the eyebrows; FER2013's images begin higher.
    SCALE, DOWN, MIN_SCORE = 1.18, -0.09, 0.7

    def _open(self) -> None:
        self._model, self._to_image = assets.open_blazeface(self.MIN_SCORE)

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
    """Searches the image rotated by 0, 90, 180, and 270 degrees; takes four times as long.

    For sideways photographs without EXIF orientation. The rotation with the best score is used for the entire
    image.
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
    """Creates one of `DETECTORS`; with `any_rotation` as a `RotatedSearch`.

    Raises:
      ValueError: the detector is unknown; the message lists all.
      As the detector's constructor.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown face detector {name!r}; there are: {', '.join(DETECTORS)}")
    detector = DETECTORS[name](**options)
    return RotatedSearch(detector) if any_rotation and name != "whole" else detector


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses OpenCV's warning that its new engine has no selectable targets."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _rescale(image: np.ndarray, max_side: int) -> tuple[np.ndarray, float]:
    """Returns the resized image and its scale."""
    height, width = image.shape[:2]
    scale = float(np.clip(max(height, width), _MIN_SIDE, max_side)) / max(height, width)
    if scale == 1:
        return image, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=how), scale


def _rotated_back(one: Detection, rotation: int, height: int, width: int) -> Detection:
    """Maps a detection in a rotated image to the original image of the given size."""

    def back(box: Box) -> Box:
        for turns in range(rotation // 90, 0, -1):
            side = width if turns % 2 else height  # of the image with one quarter turn less
            box = Box(side - box.top - box.height, box.left, box.height, box.width)
        return box

    return Detection(back(one.box), one.score, back(one.frame), rotation, one.roll)
