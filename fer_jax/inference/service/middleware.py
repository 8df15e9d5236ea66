"""ASGI middleware: metrics, limits, and closing connections while the service drains."""

import contextlib
import dataclasses
import time
from collections.abc import Callable

import h11
from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RETRY = {"Retry-After": "1"}  # seconds
_PATHS = frozenset(("/", "/predict", "/health", "/ready", "/metrics", "/model", "/openapi.json"))
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Prometheus metrics of an application."""

    def __init__(self):
        self.registry = CollectorRegistry()
        kept = {"registry": self.registry, "namespace": "fer_jax"}
        self.requests = Counter("requests", "Requests answered.", ("path", "status"), **kept)
        self.seconds = Histogram(
            "request_seconds", "Time to answer a request.", ("path",), buckets=_SECONDS, **kept
        )
        self.images = Counter("images", "Images received.", ("outcome",), **kept)
        self.running = Gauge("running_predictions", "Predictions in progress.", **kept)
        ProcessCollector(registry=self.registry)


@dataclasses.dataclass
class Guard:
    """ASGI middleware that counts and times requests, and limits their size and number."""

    app: ASGIApp  # the wrapped application
    metrics: Metrics
    max_bytes: int  # maximum size of a request body; larger requests get status 413
    max_predictions: int  # maximum number of concurrent predictions, including uploads; more get status 429
    # Returns whether the server is shutting down; responses then have `Connection: close`.
    is_draining: Callable[[], bool]
    predictions: int = 0  # current number of predictions

    def __post_init__(self):
        self.metrics.running.set_function(lambda: self.predictions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # Unknown paths count as one, because clients can make up any number.
        path = scope["path"] if scope["path"] in _PATHS else "other"
        status, started, app = 500, time.perf_counter(), self.app  # uncaught exceptions become a 500

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.is_draining():
                    MutableHeaders(scope=message)["Connection"] = "close"
            # Raised after uvicorn has answered and logged a malformed body.
            with contextlib.suppress(h11.LocalProtocolError):
                await send(message)

        if (is_prediction := path == "/predict") and self.predictions >= self.max_predictions:
            app = JSONResponse({"detail": f"{self.predictions} predictions are in progress"}, 429, RETRY)
        self.predictions += is_prediction
        try:
            await app(scope, self._limit(scope, receive), send_noted)
        finally:
            self.predictions -= is_prediction
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _limit(self, scope: Scope, receive: Receive) -> Receive:
        declared = Headers(scope=scope).get("content-length", "")
        left = self.max_bytes if not declared.isdecimal() or int(declared) <= self.max_bytes else -1

        async def receive_limited() -> Message:
            nonlocal left
            if left >= 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if left >= 0:
                    return message
            raise HTTPException(413, f"the request exceeds the limit of {self.max_bytes:,} bytes")

        return receive_limited
