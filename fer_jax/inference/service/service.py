"""The HTTP service: images in, faces and emotions out as JSON.

The event loop only moves bytes. Images are decoded and faces found in a pool of threads; the faces of all
requests that are there at the same time are classified together.

Who is refused, and how: 400, 413, 415 and 422 say what is wrong with a request; 408 that it came too slowly;
429 that too much is waiting already. The service's own fault is a 503 only: the network is not compiled yet,
or an accepted request was not done in time. 429 and 503 say in Retry-After when to try again.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fer_jax import __version__
from fer_jax.data.decoding import PictureError
from fer_jax.inference import licences
from fer_jax.inference.classifier import SIZES
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.service import request_images, schemas
from fer_jax.inference.service.batching import Batcher, QueueFullError
from fer_jax.inference.service.service_metrics import CountRequests, Metrics
from fer_jax.inference.structures import DetectedFrame, Detection, Face, Prediction

_MOST_THREADS = 4  # that decode and look for faces: each may hold a large picture
_RETRY = {"Retry-After": "1"}  # seconds
_PATHS = ("/predict", "/health", "/ready", "/metrics", "/model", "/docs", "/redoc", "/openapi.json")
_ABOUT = {
    400: "The body is no form that can be read, or ended early.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    415: "The content type is not multipart/form-data.",
    422: "A parameter is out of range, there is no image, no image can be used, or they show too many faces.",
    429: "Too much is waiting: try again after the seconds in Retry-After.",
    503: "Not compiled yet, stopping, or not done in time: try again after the seconds in Retry-After.",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a service takes at most.

    Attributes:
      upload_bytes: of a request's body.
      images: of a request.
      pixels: that an image may declare.
      faces: of a request.
      requests: predictions worked on at the same time, uploads included; more are refused.
      waiting_faces: that wait for a batch; what would add more is refused.
      timeout: seconds for a request to arrive, and again as many to be answered.
      batch: faces classified together.
      batch_wait: seconds that a face waits at most for others to be classified with, where nothing else runs.
    """

    upload_bytes: int = 20_000_000
    images: int = 16
    pixels: int = 25_000_000
    faces: int = 256
    requests: int = 32
    waiting_faces: int = 1024
    timeout: float = 30.0
    batch: int = SIZES[-1]
    batch_wait: float = 0.002


class _Workers:
    """The threads behind the service, and the way of a request through them.

    Attributes:
      running: predictions that are worked on.
    """

    def __init__(self, predictor: Predictor, limits: Limits, metrics: Metrics):
        """Starts the threads and, in one of its own, compiles the network; for an event loop to call."""
        self._predictor, self._limits, self._metrics = predictor, limits, metrics
        self.running = 0
        self._pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "pictures")
        self._batcher: Batcher[tuple[np.ndarray, Detection], Face] = Batcher(
            self._classify, size=limits.batch, wait=limits.batch_wait, capacity=limits.waiting_faces
        )
        metrics.waiting.set_function(lambda: self._batcher.waiting)
        metrics.running.set_function(lambda: self.running)
        self._compiling = asyncio.create_task(asyncio.to_thread(self._warm_up))
        self._compiling.add_done_callback(_log_failure)

    @property
    def ready(self) -> bool:
        """Whether the network is compiled."""
        return self._compiling.done() and not self.failed

    @property
    def failed(self) -> bool:
        """Whether it cannot be."""
        return self._compiling.done() and self._compiling.exception() is not None

    def _warm_up(self) -> None:
        """Compiles the network for all sizes of batches, and looks for faces once."""
        self._predictor.detector.detect(np.zeros((320, 320, 3), np.uint8))
        self._predictor.classifier.warm_up()

    async def close(self) -> None:
        """Ends the threads when they have finished what they were given."""
        await asyncio.wait([self._compiling])
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self._batcher.close)

    async def predict(self, sent: Sequence[request_images.Upload], detect: bool) -> list[Prediction | str]:
        """For each image its prediction, or why it cannot be used.

        Raises:
          HTTPException: 422 for too many faces, 429 where too many wait.
        """
        loop = asyncio.get_running_loop()
        seen = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._look, upload, detect) for upload in sent)
        )
        frames = [one for one in seen if isinstance(one, DetectedFrame)]
        faces = [pair for one in frames for pair in zip(one.crops, one.detections, strict=True)]
        if len(faces) > self._limits.faces:
            limit = f"more than the limit of {self._limits.faces} a request"
            raise HTTPException(422, f"the images show {len(faces)} faces, {limit}: send fewer")
        told = iter(await self._tell(faces))
        return [
            one
            if isinstance(one, str)
            else Prediction(upload.name, *one.size, tuple(next(told) for _ in one.detections))
            for upload, one in zip(sent, seen, strict=True)
        ]

    def _look(self, upload: request_images.Upload, detect: bool) -> DetectedFrame | str:
        try:
            frame = self._predictor.detect(
                upload.data, upload.name, detected=detect, max_pixels=self._limits.pixels
            )
        except PictureError as error:
            self._metrics.images.labels("unreadable").inc()
            return str(error)
        self._metrics.images.labels("read").inc()
        return dataclasses.replace(frame, image=None)

    async def _tell(self, faces: list[tuple[np.ndarray, Detection]]) -> list[Face]:
        if not faces:
            return []
        try:
            return await asyncio.wrap_future(self._batcher.submit(faces))
        except QueueFullError as error:
            raise HTTPException(429, "too many faces are waiting", _RETRY) from error

    def _classify(self, faces: list[tuple[np.ndarray, Detection]]) -> list[Face]:
        self._metrics.batches.observe(len(faces))
        return self._predictor.classify(np.stack([crop for crop, _ in faces]), [one for _, one in faces])


def create_app(predictor: Predictor, limits: Limits = Limits()) -> FastAPI:  # noqa: B008
    """The service as an ASGI application. It compiles the network when it is started.

    Args:
      predictor: that answers.
      limits: what is taken at most.
    """
    metrics, model = Metrics(), schemas.describe_model(predictor)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.workers = workers = _Workers(predictor, limits, metrics)
        yield
        await workers.close()

    app = FastAPI(
        title="fer_jax",
        summary="Faces in images and their emotions.",
        description=licences.INTENDED_USE,
        version=__version__,
        lifespan=lifespan,
    )
    app.add_middleware(CountRequests, metrics=metrics, paths=_PATHS)
    app.add_exception_handler(RequestValidationError, _explain_parameters)
    app.add_exception_handler(Exception, _explain_nothing)

    def ready_workers() -> _Workers:
        if not app.state.workers.ready:
            raise HTTPException(503, "the network is not compiled yet", _RETRY)
        return app.state.workers

    @app.post(
        "/predict",
        openapi_extra={"requestBody": request_images.REQUEST_BODY},
        responses=_problems(400, 408, 413, 415, 422, 429, 503),
    )
    async def predict(
        request: Request,
        detect: Annotated[bool, Query(description="Look for faces; false: each image is one face.")] = True,
        top: Annotated[
            int | None,
            Query(ge=1, le=len(model.emotions), description="Of each face so many likeliest emotions only."),
        ] = None,
    ) -> schemas.Predictions:
        """Finds the faces of one image or several and tells their emotions.

        An image that cannot be used has an `error` instead of faces; where that is all of them, the reply is
        422. Nothing of a request is kept.
        """
        workers = ready_workers()
        if workers.running >= limits.requests:
            raise HTTPException(429, f"{workers.running} requests are being worked on", _RETRY)
        workers.running += 1
        try:
            sent = await _in_time(
                request_images.read(request, limits.upload_bytes, limits.images),
                limits.timeout,
                HTTPException(408, f"the request did not arrive within {limits.timeout:g} seconds"),
            )
            found = await _in_time(
                workers.predict(sent, detect),
                limits.timeout,
                HTTPException(503, f"not done within {limits.timeout:g} seconds", _RETRY),
            )
        finally:
            workers.running -= 1
        if all(isinstance(one, str) for one in found):
            raise HTTPException(422, "; ".join(found))
        return schemas.Predictions(
            images=[
                schemas.Image(source=upload.name, error=one)
                if isinstance(one, str)
                else schemas.describe_image(one, top)
                for upload, one in zip(sent, found, strict=True)
            ]
        )

    @app.get("/model")
    async def describe_model() -> schemas.Model:
        """What answers: the network, its classes, its score, how it is meant to be used."""
        return model

    @app.get("/health", responses=_problems(503))
    async def health() -> schemas.State:
        """Whether the process lives, from the start on; 503 says that it has to be started again."""
        if app.state.workers.failed:
            raise HTTPException(503, "the network cannot be run; the log says why", _RETRY)
        return schemas.State(status="alive")

    @app.get("/ready", responses=_problems(503))
    async def ready() -> schemas.State:
        """Whether images can be sent: the network is compiled for all sizes of batches."""
        ready_workers()
        return schemas.State(status="ready")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def count() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _in_time(work: Any, seconds: float, refusal: HTTPException) -> Any:
    """What `work` gives; when it takes longer, it is cancelled and `refusal` raised."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise refusal from error


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Problem, "description": _ABOUT[status]} for status in statuses}


def _log_failure(compiling: asyncio.Task) -> None:
    if not compiling.cancelled() and (error := compiling.exception()):
        logging.error("the network cannot be run; the service never gets ready", exc_info=error)


async def _explain_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
    """In the form of all other problems."""
    words = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(words)}, 422)


async def _explain_nothing(_: Request, __: Exception) -> JSONResponse:
    """To strangers; the log has the error."""
    return JSONResponse({"detail": "an error of the service; it was logged"}, 500)
