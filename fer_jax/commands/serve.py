"""Serves a predictor over HTTP: fer-jax serve [--model cnn] [--port 8000].

    curl -F images=@photo.jpg -F images=@other.png http://127.0.0.1:8000/predict

The reply is JSON: for each image its faces, and for each face box, emotion, confidence and probabilities.
/docs describes it all (OpenAPI), /model the network, /health and /ready are for whoever watches over the
process, /metrics is for Prometheus. Nothing of a request is stored, not even for a while.

SIGTERM and Ctrl-C stop it gracefully: no new connections, what was accepted is answered, exit code 0. It
has neither a password nor encryption: put a proxy that has them before it.
"""

import argparse
import asyncio
import logging
import signal
import sys
from typing import Any

from fer_jax.pretrained.registry import BUNDLED, DEFAULT


def main(argv: list[str] | None = None) -> int:
    """Serves until it is told to stop; returns the exit code."""
    args = make_parser().parse_args(argv)
    # After the flags are parsed, so that --help needs neither a device nor seconds.
    import uvicorn

    from fer_jax.inference.predictor import Predictor
    from fer_jax.inference.service.service import Limits, create_app
    from fer_jax.weights_file import DamagedCheckpointError

    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)
    try:
        limits = Limits(
            upload_bytes=int(args.max_upload_mb * 1e6),
            images=args.max_images,
            pixels=int(args.max_megapixels * 1e6),
            faces=args.max_faces,
            requests=args.max_requests,
            waiting_faces=args.max_waiting_faces,
            timeout=args.timeout,
            batch=args.max_batch,
            batch_wait=args.batch_wait_ms / 1e3,
        )
        predictor = Predictor.load(args.model, args.detector, margin=args.margin)
    except (DamagedCheckpointError, ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(predictor, limits),
            host=args.host,
            port=args.port,
            http=_impatient_protocol(limits.timeout),
            ws="none",
            server_header=False,
            # Time for a request that has just begun to arrive, and for its answer.
            timeout_graceful_shutdown=round(2 * limits.timeout) + 1,
        )
    )
    # When it has stopped, uvicorn raises the signal again for whoever waits for it: nobody, the work is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        "fer-jax serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: %(default)s)")
    add("--port", type=_whole(0), default=8000, help="0 for any that is free (default: %(default)s)")
    add(
        "--model",
        default=DEFAULT,
        help=f"a .safetensors file, a run's directory or one of {', '.join(BUNDLED)} (default: %(default)s)",
    )
    add(
        "--detector",
        default="yunet",
        choices=("mediapipe", "whole", "yunet"),
        help="what finds faces; 'whole' where each image is one (default: %(default)s)",
    )
    add(
        "--margin",
        type=float,
        default=1.0,
        help="size of the frame about a face over training's (default: 1)",
    )
    limit = parser.add_argument_group("limits")
    add = limit.add_argument
    add("--max_upload_mb", type=_positive, default=20, help="of a request (default: %(default)s)")
    add("--max_images", type=_whole(1), default=16, help="of a request (default: %(default)s)")
    add("--max_megapixels", type=_positive, default=25, help="of an image (default: %(default)s)")
    add("--max_faces", type=_whole(1), default=256, help="of a request (default: %(default)s)")
    add(
        "--max_requests",
        type=_whole(1),
        default=32,
        help="predictions at the same time; more are refused with 429 (default: %(default)s)",
    )
    add(
        "--max_waiting_faces",
        type=_whole(1),
        default=1024,
        help="queue for the network; more are refused with 429 (default: %(default)s)",
    )
    add(
        "--timeout",
        type=_positive,
        default=30,
        help="seconds for a request to arrive, and again for its answer (default: %(default)s)",
    )
    add("--max_batch", type=_whole(1), default=256, help="faces classified together (default: %(default)s)")
    add(
        "--batch_wait_ms",
        type=_not_negative,
        default=2,
        help="an idle network waits so long for more faces to join the first (default: %(default)s)",
    )
    return parser


def _whole(least: int) -> Any:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return whole


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _not_negative(text: str) -> float:
    return 0.0 if text.strip() == "0" else _positive(text)


def _impatient_protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, but a connection on which no request is worked on is closed after a time.

    By itself uvicorn waits for ever for a request's headers, and for what is left of a body that was
    refused.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class ImpatientProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._start_waiting()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._patience.cancel()
            self._start_waiting()

        def connection_lost(self, error: Exception | None) -> None:
            self._patience.cancel()
            super().connection_lost(error)

        def _start_waiting(self) -> None:
            self._patience = self.loop.call_later(seconds, self._close_if_idle)

        def _close_if_idle(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return ImpatientProtocol
