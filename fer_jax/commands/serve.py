"""Serves a predictor over HTTP: fer-jax serve [--model cnn] [--port 8000].

    curl -F images=@photo.jpg -F images=@other.png http://127.0.0.1:8000/predict

The reply is JSON: for each image its faces, and for each face box, emotion, confidence and probabilities.
`/` lists the routes: /openapi.json describes them all, /model the network; /health and /ready are for load
balancers and supervisors, /metrics is for Prometheus. Nothing of a request is stored.

SIGTERM and Ctrl-C stop it gracefully: it takes no new connections, answers what it accepted, and exits with
code 0. Put a reverse proxy in front of it: the service has no passwords and no encryption, and leaves clients
that send or read slowly to the proxy.
"""

import argparse
import logging
import math
import re
import signal
from collections.abc import Callable

from fer_jax.commands import common
from fer_jax.inference.engines import ENGINES
from fer_jax.pretrained.registry import BUNDLED, DEFAULT


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped; returns the exit code."""
    return common.run(serve, make_parser().parse_args(argv))


def serve(args: argparse.Namespace) -> int:
    """Serves as the flags say; returns the exit code."""
    import uvicorn

    from fer_jax.inference.predictor import Predictor
    from fer_jax.inference.service.service import Limits, create_app

    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)
    limits = Limits(
        upload_bytes=int(args.max_upload_mb * 1e6),
        images=args.max_images,
        pixels=int(args.max_megapixels * 1e6),
        faces=args.max_faces,
        requests=args.max_requests,
        timeout=args.timeout,
    )
    predictor = Predictor.load(args.model, args.detector, margin=args.margin, engine=args.engine)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(predictor, limits, args.allowed_hosts, lambda: server.should_exit),
            host=args.host,
            port=args.port,
            http="h11",
            ws="none",
            server_header=False,
            # Time for a request that has just begun to arrive, and for its answer.
            timeout_graceful_shutdown=math.ceil(2 * limits.timeout),
        )
    )
    # When it has stopped, uvicorn raises the signal again for a caller that waits for it; there is none.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        "fer-jax serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: %(default)s)")
    text = "port to listen on; 0 picks a free port (default: %(default)s)"
    add("--port", type=_number(int, 0, 65535), default=8000, help=text)
    text = f"a .safetensors file, a run's directory or a bundled network: {', '.join(BUNDLED)}"
    add("--model", default=DEFAULT, help=f"{text} (default: %(default)s)")
    text = "face detector; whole treats each image as one face (default: %(default)s)"
    add("--detector", default="yunet", choices=("mediapipe", "whole", "yunet"), help=text)
    text = "what computes the network: ONNX Runtime on the CPU or JAX (default: auto, JAX if it has a GPU)"
    add("--engine", default="auto", choices=ENGINES, help=text)
    text = "size of the face crop relative to the training crop (default: 1)"
    add("--margin", type=float, default=1.0, help=text)
    text = "accepted values of the Host header; *.example.org for all subdomains (default: any)"
    add("--allowed_hosts", type=_host, nargs="+", default=["*"], metavar="HOST", help=text)
    add = parser.add_argument_group("limits").add_argument
    text = "(default: %(default)s)"
    more = f"maximum size of a request, in MB {text}"
    add("--max_upload_mb", type=_number(float, 1e-6), default=20, metavar="N", help=more)
    more = f"maximum images per request {text}"
    add("--max_images", type=_number(int, 1), default=16, metavar="N", help=more)
    more = f"maximum size of an image, in megapixels {text}"
    add("--max_megapixels", type=_number(float, 1e-6), default=25, metavar="N", help=more)
    more = f"maximum faces per request {text}"
    add("--max_faces", type=_number(int, 1), default=256, metavar="N", help=more)
    more = f"maximum concurrent predictions; further requests get status 429 {text}"
    add("--max_requests", type=_number(int, 1), default=32, metavar="N", help=more)
    more = f"seconds within which a received request must be answered {text}"
    add("--timeout", type=_number(float, 1e-3), default=30, metavar="N", help=more)
    return parser


def _number(kind: type, least: float, most: float = 1e9) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {kind.__name__}, {least:g} to {most:g}")
        return value

    return number


def _host(text: str) -> str:
    if not re.fullmatch(r"\*|(\*\.)?[^*]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host, *.DOMAIN or *")
    return text
