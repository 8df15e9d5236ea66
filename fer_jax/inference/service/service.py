"""The HTTP service: images in, faces and emotions out as JSON.

The event loop only moves bytes; a pool of threads decodes images, finds faces and classifies them. Only a 503
is the service's own fault: the network is not compiled yet, or an accepted request was not done in time. How
slowly a client may send or read is not limited here: that is the business of the reverse proxy in front.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, File, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.formparsers import MultiPartParser
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fer_jax import __version__, tables
from fer_jax.data.decoding import PictureError
from fer_jax.inference import licences
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.service import schemas
from fer_jax.inference.service.middleware import RETRY, Guard, Metrics
from fer_jax.inference.structures import DetectedFrame, Prediction

_MOST_THREADS = 4  # each may hold one image, of up to 11 bytes a pixel while it is decoded
_LARGE = 4_000_000  # pixels from which on an image's memory is returned to the system at once
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": text}
    for status, text in {
        400: "The body is not a form that can be read, or has too many files.",
        413: "The body is too large.",
        415: "The content type is not multipart/form-data.",
        422: "A parameter is out of range, no image can be used, or they show too many faces.",
        429: "Too many predictions are in progress: try again after the seconds in Retry-After.",
        503: "Not compiled yet, or not done in time: try again after the seconds in Retry-After.",
    }.items()
}

MultiPartParser.spool_max_size = 0  # keeps uploads out of temporary files; `Limits.upload_bytes` bounds them


@dataclasses.dataclass(frozen=True)
class Limits:
    """Upper bounds of what a service accepts."""

    upload_bytes: int = 20_000_000  # of a request's body
    images: int = 16  # in a request
    pixels: int = 25_000_000  # that an image may declare
    faces: int = 256  # in a request
    requests: int = 32  # predictions in progress, uploads included
    timeout: float = 30.0  # seconds to answer a request that has arrived


class _Workers:
    """The threads behind the service, and a request's way through them."""

    def __init__(self, predictor: Predictor, limits: Limits, metrics: Metrics):
        self.status = "compiling"  # then "ready" or "failed"
        self._predictor, self._limits, self._metrics = predictor, limits, metrics
        self.pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "predictions")

    async def compile(self) -> None:
        """Compiles the network for all batch sizes, and looks for faces once."""
        try:
            await self._run(self._predictor.detector.detect, np.zeros((320, 320, 3), np.uint8))
            await self._run(self._predictor.classifier.engine.warm_up)
            self.status = "ready"
        except Exception:
            logging.exception("the network cannot be run; the service never gets ready")
            self.status = "failed"

    async def predict(
        self, uploads: Sequence[UploadFile], detect: bool, top: int | None
    ) -> list[schemas.Image]:
        """Returns each image's faces with the `top` most likely emotions, or why it cannot be used.

        Raises:
          HTTPException: 422 for too many faces.
        """
        names = [_printable(upload.filename) or f"image {i}" for i, upload in enumerate(uploads)]
        looks = [self._run(self._look, *one, detect) for one in zip(uploads, names, strict=True)]
        frames = await asyncio.gather(*looks)
        if (count := sum(len(frame.detections) for frame in frames)) > self._limits.faces:
            limit = f"more than the limit of {self._limits.faces} a request"
            raise HTTPException(422, f"the images show {count} faces, {limit}: send fewer")
        faces = await self._run(self._predictor.classify_frames, frames)
        return [
            schemas.Image(source=name, error=frame.error)
            if frame.error
            else schemas.describe_image(Prediction(name, *frame.size, faces=own), top)
            for name, frame, own in zip(names, frames, faces, strict=True)
        ]

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def _look(self, upload: UploadFile, name: str, detect: bool) -> DetectedFrame:
        data, most = upload.file.read(), self._limits.pixels
        try:
            frame = self._predictor.detect(data, name, detected=detect, max_pixels=most)
        except PictureError as error:
            self._metrics.images.labels("unreadable").inc()
            return DetectedFrame(error=str(error))
        self._metrics.images.labels("read").inc()
        frame = dataclasses.replace(frame, image=None)
        if math.prod(frame.size) >= _LARGE:
            _return_memory()
        return frame


def create_app(
    predictor: Predictor,
    limits: Limits = Limits(),  # noqa: B008
    allowed_hosts: Sequence[str] = ("*",),
    is_draining: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Returns the service as an ASGI application, which compiles the network when it is started.

    Args:
      predictor: answers.
      limits: upper bounds of what is accepted.
      allowed_hosts: values of the Host header; `*.example.org` allows all subdomains, `*` all hosts.
      is_draining: whether the server is shutting down.
    """
    metrics, model = Metrics(), schemas.describe_model(predictor)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.workers = workers = _Workers(predictor, limits, metrics)
        compiling = asyncio.create_task(workers.compile())
        yield
        await compiling
        await asyncio.to_thread(workers.pool.shutdown)

    app = FastAPI(
        title="fer_jax",
        summary="Finds faces in images and classifies their emotions.",
        description=licences.INTENDED_USE,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from other servers
        redoc_url=None,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts, www_redirect=False)
    app.add_middleware(Guard, metrics, limits.upload_bytes, limits.requests, is_draining)
    app.add_exception_handler(RequestValidationError, _explain_parameters)
    app.add_exception_handler(Exception, _hide_error)

    async def get_workers() -> _Workers:
        if app.state.workers.status != "ready":
            raise HTTPException(503, "the network is not compiled yet", RETRY)
        return app.state.workers

    @app.post(
        "/predict",
        dependencies=[Depends(_require_form)],
        form_limits={"max_files": limits.images, "max_fields": 16},
        responses=_PROBLEMS,
    )
    async def predict(
        workers: Annotated[_Workers, Depends(get_workers)],
        images: Annotated[
            list[UploadFile],
            File(
                min_length=1,
                description="JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF, JPEG 2000 or PGM/PPM; the first frame.",
            ),
        ],
        detect: Annotated[bool, Query(description="Find faces; false: each image is one face.")] = True,
        top: Annotated[
            int | None,
            Query(ge=1, le=len(model.emotions), description="Number of most likely emotions to return."),
        ] = None,
    ) -> schemas.Predictions:
        """Finds the faces in images and classifies their emotions.

        An image that cannot be used has an `error` instead of faces; if none can be used, the reply is 422.
        Nothing of a request is stored.
        """
        try:
            async with asyncio.timeout(limits.timeout):
                found = await workers.predict(images, detect, top)
        except TimeoutError as error:
            raise HTTPException(503, f"not done within {limits.timeout:g} seconds", RETRY) from error
        errors = [image.error for image in found if image.error]
        if len(errors) == len(found):
            raise HTTPException(422, "; ".join(errors))
        return schemas.Predictions(images=found)

    @app.get("/")
    async def describe_service() -> schemas.Service:
        """Says what this service is, and lists its routes."""
        routes = {
            path: operation["description"].partition("\n")[0]
            for path, operations in app.openapi()["paths"].items()
            for operation in operations.values()
        } | {"/docs": "Shows all routes.", "/openapi.json": "Describes all routes."}
        return schemas.Service(name=app.title, version=app.version, summary=str(app.summary), routes=routes)

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def show_routes(request: Request) -> str:
        """Shows all routes as a page that loads nothing."""
        return tables.render(__package__, "docs.html.j2", api=app.openapi(), address=str(request.base_url))

    @app.get("/model")
    async def describe_model() -> schemas.Model:
        """Describes the network: its classes, its score, and its intended use."""
        return model

    @app.get("/health", responses={503: _PROBLEMS[503]})
    async def health() -> schemas.State:
        """Tells whether the process works, from its start on; on 503 it has to be restarted."""
        if app.state.workers.status == "failed":
            raise HTTPException(503, "the network cannot be run; the log says why", RETRY)
        return schemas.State(status="alive")

    @app.get("/ready", responses={503: _PROBLEMS[503]}, dependencies=[Depends(get_workers)])
    async def ready() -> schemas.State:
        """Tells whether the network is compiled, so that images can be sent."""
        return schemas.State(status="ready")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def export_metrics() -> Response:
        """Returns metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _require_form(request: Request) -> None:
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, f"the content type is {kind[:100]!r}; expected multipart/form-data")


def _printable(name: str | None) -> str:
    """Returns the name of a stranger's file so that it is safe to repeat: short, no control characters."""
    return "".join(c if c.isprintable() else "?" for c in (name or "")[:100])


def _return_memory() -> None:
    """Returns freed memory to the system; glibc would keep over 100 MB a thread after large images."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


async def _explain_parameters(_: Request, error: Any) -> JSONResponse:
    words = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(words)}, 422)


async def _hide_error(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"detail": "an error of the service; it was logged"}, 500)
