"""The HTTP service: predicts emotions in uploaded images.

The event loop only transfers data; a thread pool decodes images, and detects and classifies faces. Status 503
means that the network is not compiled yet, or that a request timed out. Slow clients are not limited here,
but by the reverse proxy.
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
from fer_jax.inference.predictor import Prediction, Predictor
from fer_jax.inference.service import schemas
from fer_jax.inference.service.middleware import RETRY, Guard, Metrics
from fer_jax.inference.structures import DetectedFrame

_MOST_THREADS = 4  # each holds up to one image, of 11 bytes per pixel while decoding
_LARGE = 4_000_000  # pixels of images whose memory is returned to the system immediately
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": text}
    for status, text in {
        400: "The body is not a valid form, or has too many files.",
        413: "The body is too large.",
        415: "The content type is not multipart/form-data.",
        422: "A parameter is invalid, no image can be used, or there are too many faces.",
        429: "Too many predictions are in progress: retry after the seconds in Retry-After.",
        503: "Not ready, or timed out: retry after the seconds in Retry-After.",
    }.items()
}

MultiPartParser.spool_max_size = 0  # no temporary files; `Limits.upload_bytes` bounds memory


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a service."""

    upload_bytes: int = 20_000_000  # per request
    images: int = 16  # per request
    pixels: int = 25_000_000  # per image
    faces: int = 256  # per request
    requests: int = 32  # concurrent predictions, including uploads
    timeout: float = 30.0  # seconds to answer a received request


class _Workers:
    """The thread pool of the service."""

    def __init__(self, predictor: Predictor, limits: Limits, metrics: Metrics):
        self.status = "compiling"  # then "ready" or "failed"
        self._predictor, self._limits, self._metrics = predictor, limits, metrics
        self.pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "predictions")

    async def compile(self) -> None:
        """Compiles the network for all batch sizes, and runs the detector once."""
        try:
            await self._run(self._predictor.detector.detect, np.zeros((320, 320, 3), np.uint8))
            await self._run(self._predictor.classifier.engine.warm_up)
            self.status = "ready"
        except Exception:
            logging.exception("the network cannot run, so the service will not become ready")
            self.status = "failed"

    async def predict(
        self, uploads: Sequence[UploadFile], detect: bool, top: int | None
    ) -> list[schemas.Image]:
        """Returns the faces in each image with the `top` most likely emotions, or an error.

        Raises:
          HTTPException: 422, there are too many faces.
        """
        names = [_printable(upload.filename) or f"image {i}" for i, upload in enumerate(uploads)]
        looks = [self._run(self._look, *one, detect) for one in zip(uploads, names, strict=True)]
        frames = await asyncio.gather(*looks)
        if (count := sum(len(frame.detections) for frame in frames)) > self._limits.faces:
            limit = f"more than the limit of {self._limits.faces} per request"
            raise HTTPException(422, f"the images have {count} faces, {limit}: send fewer")
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
    """Creates the service as an ASGI application, which compiles the network at startup.

    `allowed_hosts` are values of the Host header; `*.example.org` allows all subdomains, `*` all hosts.
    `is_draining` returns whether the server is shutting down.
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
        summary="Detects faces in images and classifies their emotions.",
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
        detect: Annotated[
            bool, Query(description="Whether to detect faces; if false, each image is one face.")
        ] = True,
        top: Annotated[
            int | None,
            Query(
                ge=1,
                le=len(model.emotions),
                description="Number of emotions to return, most likely first; default: all.",
            ),
        ] = None,
    ) -> schemas.Predictions:
        """Detects the faces in images and classifies their emotions.

        An image that cannot be used has an `error` instead of faces; if none can be used, the status is 422.
        Requests are not stored.
        """
        try:
            async with asyncio.timeout(limits.timeout):
                found = await workers.predict(images, detect, top)
        except TimeoutError as error:
            raise HTTPException(503, f"timed out after {limits.timeout:g} seconds", RETRY) from error
        errors = [image.error for image in found if image.error]
        if len(errors) == len(found):
            raise HTTPException(422, "; ".join(errors))
        return schemas.Predictions(images=found)

    @app.get("/")
    async def describe_service() -> schemas.Service:
        """Describes the service and lists its routes."""
        routes = {
            path: operation["description"].partition("\n")[0]
            for path, operations in app.openapi()["paths"].items()
            for operation in operations.values()
        } | {
            "/docs": "Shows the documentation of all routes.",
            "/openapi.json": "Returns the OpenAPI schema.",
        }
        return schemas.Service(name=app.title, version=app.version, summary=str(app.summary), routes=routes)

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def show_routes(request: Request) -> str:
        """Shows the documentation of all routes."""
        return tables.render(__package__, "docs.html.j2", api=app.openapi(), address=str(request.base_url))

    @app.get("/model")
    async def describe_model() -> schemas.Model:
        """Describes the network: classes, score, and intended use."""
        return model

    @app.get("/health", responses={503: _PROBLEMS[503]})
    async def health() -> schemas.State:
        """Reports liveness; restart the process on status 503."""
        if app.state.workers.status == "failed":
            raise HTTPException(503, "the network cannot run; see the log", RETRY)
        return schemas.State(status="alive")

    @app.get("/ready", responses={503: _PROBLEMS[503]}, dependencies=[Depends(get_workers)])
    async def ready() -> schemas.State:
        """Reports whether the service is ready for predictions."""
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
    """Returns a file name that is safe to return: short, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in (name or "")[:100])


def _return_memory() -> None:
    """Returns freed memory to the system; glibc would keep over 100 MB per thread after large images."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


async def _explain_parameters(_: Request, error: Any) -> JSONResponse:
    words = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(words)}, 422)


async def _hide_error(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"detail": "internal error; see the log"}, 500)
