"""What the service counts, for Prometheus."""

import time
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_FACES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one application.

    Attributes:
      registry: that holds them.
      requests: by path and status.
      seconds: from a request's first byte to its reply's last, by path.
      images: by outcome: "read" or "unreadable".
      batches: faces that were classified together.
      waiting: faces that wait for a batch.
      running: predictions that are worked on.
    """

    def __init__(self):
        self.registry = CollectorRegistry()
        kept = {"registry": self.registry, "namespace": "fer_jax"}
        self.requests = Counter("requests", "Requests answered.", ("path", "status"), **kept)
        self.seconds = Histogram(
            "request_seconds", "Time to answer a request.", ("path",), buckets=_SECONDS, **kept
        )
        self.images = Counter("images", "Images received.", ("outcome",), **kept)
        self.batches = Histogram("batch_faces", "Faces classified together.", buckets=_FACES, **kept)
        self.waiting = Gauge("waiting_faces", "Faces that wait for a batch.", **kept)
        self.running = Gauge("running_predictions", "Predictions that are worked on.", **kept)
        ProcessCollector(registry=self.registry)


class CountRequests:
    """ASGI middleware that counts and times requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]):
        """Wraps an application.

        Args:
          app: to wrap.
          metrics: to count in.
          paths: that are counted by name; all others are one, for strangers can make up any number.
        """
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, started = 500, time.perf_counter()  # what escapes the application becomes a 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)
