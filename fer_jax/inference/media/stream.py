"""Pictures and frames one after the other, their faces classified together: results in constant memory."""

import dataclasses
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from fer_jax.data import decoding
from fer_jax.inference.detection.detectors import MAX_SIDE, MAX_SIDE_IN_VIDEO
from fer_jax.inference.media import video
from fer_jax.inference.media.inputs import Input
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import Detection, Face

T = TypeVar("T")

# Pictures in which faces are found before the classifier has come to them; fewer where these are kept.
AHEAD, AHEAD_WITH_IMAGES = 16, 4
_MOST_WAITING = 1024  # pictures that wait for enough faces to classify together
_MOST_HELD = 200_000_000  # bytes of those that are kept


@dataclasses.dataclass(frozen=True, eq=False)
class DetectedFrame:
    """A picture or a frame in which faces were looked for, or the end of a file.

    Attributes:
      source: the file.
      size: (width, height) of the upright picture; None where there is no picture: a file's end or error.
      found: its faces.
      crops: uint8 [N, side, side, channels].
      frame, seconds: place in a video; None in a picture.
      image: uint8 [H, W] or [H, W, 3] where it was to be kept.
      error: why the file, or the rest of it, cannot be read.
      ends: whether it is the last of its file.
    """

    source: Input
    size: tuple[int, int] | None = None
    found: tuple[Detection, ...] = ()
    crops: np.ndarray | None = None
    frame: int | None = None
    seconds: float | None = None
    image: np.ndarray | None = None
    error: str | None = None
    ends: bool = True


def look(
    inputs: Iterable[Input],
    predictor: Predictor,
    *,
    every_seconds: float | None = None,
    keep_images: bool = False,
    start: int = 0,
) -> Iterator[DetectedFrame]:
    """Looks for faces in files; a file that cannot be read is one `DetectedFrame` with its error.

    Args:
      inputs: the files.
      predictor: its detector finds the faces.
      every_seconds: of videos one frame in so many seconds; None for all.
      keep_images: whether to hand the pictures on.
      start: frame to begin the first file at.
    """
    for source in inputs:
        if source.is_video:
            yield from _look_at_video(source, predictor, every_seconds, keep_images, start)
        else:
            try:
                yield _look_at(decoding.read(source.path), source, predictor, keep_images)
            except decoding.PictureError as error:
                yield DetectedFrame(source, error=str(error))
        start = 0


def _look_at_video(
    source: Input, predictor: Predictor, every_seconds: float | None, keep_images: bool, start: int
) -> Iterator[DetectedFrame]:
    try:
        for frame in video.read_frames(source.path, every_seconds, start):
            seen = _look_at(frame.image, source, predictor, keep_images, MAX_SIDE_IN_VIDEO)
            yield dataclasses.replace(seen, frame=frame.number, seconds=frame.seconds, ends=False)
    except video.VideoError as error:
        yield DetectedFrame(source, error=str(error))
    else:
        yield DetectedFrame(source)


def _look_at(
    image: np.ndarray, source: Input, predictor: Predictor, keep_image: bool, max_side: int = MAX_SIDE
) -> DetectedFrame:
    found = predictor.detector.detect(image, max_side)
    crops = predictor.crop(image, found)
    size = image.shape[1], image.shape[0]
    return DetectedFrame(source, size, tuple(found), crops, image=image if keep_image else None)


def classify(
    seen: Iterable[DetectedFrame], predictor: Predictor
) -> Iterator[tuple[DetectedFrame, list[Face]]]:
    """Each with the emotions of its faces, in order; faces are classified in the largest of the batches.

    Args:
      seen: from `look`.
      predictor: its classifier tells the emotions.
    """
    waiting: list[DetectedFrame] = []
    faces = held = 0
    for one in seen:
        waiting.append(one)
        faces += len(one.found)
        held += 0 if one.image is None else one.image.nbytes
        if faces >= predictor.classifier.sizes[-1] or held >= _MOST_HELD or len(waiting) >= _MOST_WAITING:
            yield from _classify(waiting, predictor)
            waiting, faces, held = [], 0, 0
    yield from _classify(waiting, predictor)


def _classify(
    waiting: list[DetectedFrame], predictor: Predictor
) -> Iterator[tuple[DetectedFrame, list[Face]]]:
    with_faces = [one for one in waiting if one.found]
    faces = []
    if with_faces:
        crops = np.concatenate([one.crops for one in with_faces])
        faces = predictor.classify(crops, [face for one in with_faces for face in one.found])
    rest = iter(faces)
    for one in waiting:
        yield one, [next(rest) for _ in one.found]


def ahead(items: Iterator[T], most: int = AHEAD) -> Iterator[T]:
    """The items, taken in a thread of its own, so that whoever uses them need not wait for the next.

    Args:
      items: to take; what it raises is raised here. It is closed in that thread.
      most: how many may wait to be used.
    """
    ready: queue.Queue = queue.Queue(most)
    stopped = threading.Event()

    def put(entry: tuple[str, object]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def take() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    return
            put(("end", None))
        except BaseException as error:  # handed on to whoever uses the items
            put(("error", error))
        finally:
            items.close()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()
