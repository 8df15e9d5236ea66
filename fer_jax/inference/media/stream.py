"""Streams frames from images and videos, and classifies their faces in batches, in constant memory."""

import collections
import dataclasses
import itertools
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fer_jax.data.decoding import PictureError
from fer_jax.inference.detection.detectors import MAX_SIDE_IN_VIDEO
from fer_jax.inference.media import VideoError
from fer_jax.inference.media.inputs import Input
from fer_jax.inference.media.tracking import Tracker
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import DetectedFrame, Face, Track

T = TypeVar("T")

# Prefetched frames; fewer if they keep their images.
AHEAD, AHEAD_WITH_IMAGES = 16, 4
_MAX_WAITING = 1024  # frames that wait for a full batch of faces
_MAX_HELD = 200_000_000  # bytes of images among them


def detect(
    inputs: Iterable[Input],
    predictor: Predictor,
    *,
    every_seconds: float | None = None,
    keep_images: bool = False,
    start: int = 0,
    stop: threading.Event | None = None,
) -> Generator[DetectedFrame, None, None]:
    """Yields the frames of inputs with their faces; an unreadable file yields a frame with the error.

    Args:
      inputs: the inputs.
      predictor: detects the faces.
      every_seconds: interval between frames of a video; None yields all.
      keep_images: whether frames keep their images.
      start: first frame number of the first file.
      stop: ends a camera or stream when set.
    """
    for one in inputs:
        known = {"source": one.path} | ({} if keep_images else {"image": None})
        try:
            if one.is_video:
                from fer_jax.inference.media import live, video  # slow to import, and not needed for images

                if one.address:
                    frames = live.read_frames(one, every_seconds, stop or threading.Event())
                else:
                    frames = video.read_frames(one.path, every_seconds, start)
                for frame in frames:
                    found = predictor.detect(frame.image, max_side=MAX_SIDE_IN_VIDEO)
                    place = {"frame": frame.number, "seconds": frame.seconds, "ends": False}
                    yield dataclasses.replace(found, **known, **place)
                yield DetectedFrame(source=one.path)
            else:
                yield dataclasses.replace(predictor.detect(one.path), **known)
        except (VideoError, PictureError) as error:
            yield DetectedFrame(source=one.path, error=str(error))
        start = 0


def classify(
    frames: Iterable[DetectedFrame], predictor: Predictor, tracker: Tracker, max_waiting: int = _MAX_WAITING
) -> Iterator[tuple[DetectedFrame, tuple[Face, ...], list[Track]]]:
    """Yields each frame of `detect` with its classified faces and, in a video, their tracks.

    Up to `max_waiting` frames wait for a full batch of the predictor. The tracker is cleared at the end of
    each file.
    """
    waiting: list[DetectedFrame] = []
    found = held = 0
    for one in itertools.chain(frames, [None]):
        if one is not None:
            waiting.append(one)
            found += len(one.detections)
            held += 0 if one.image is None else one.image.nbytes
            batch = predictor.classifier.engine.batch_size
            if found < batch and held < _MAX_HELD and len(waiting) < max_waiting:
                continue
        for frame, faces in zip(waiting, predictor.classify_frames(waiting), strict=True):
            tracks = [] if frame.frame is None else tracker.update(faces, frame.seconds)
            if frame.ends:
                tracker.clear()
            yield frame, faces, tracks
        waiting, found, held = [], 0, 0


def ahead(items: Generator[T, None, None], count: int = AHEAD) -> Iterator[T]:
    """Yields items, prefetching `count` of them in a thread; re-raises its exceptions."""
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(thread.submit(next, items, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
            items.close()
