"""Serves a predictor over HTTP: fer-jax serve [--model cnn] [--port 8000].

    curl -F images=@photo.jpg -F images=@other.png http://127.0.0.1:8000/predict

The response is JSON: the faces of each image, with box, emotion, confidence, and probabilities. `/` lists the
routes: /docs and /openapi.json describe the API, /model the network; /health and /ready are for load
balancers and supervisors, /metrics is for Prometheus. Requests are not stored.

SIGTERM and Ctrl-C stop it gracefully: it accepts no new connections, answers pending requests, and exits with
code 0. Run it behind a reverse proxy: it has no authentication, no encryption, and no protection against slow
clients.
"""

import argparse
import logging
import math
import re
import signal

from fer_jax.commands import common


def main(argv: list[str] | None = None) -> int:
    """Serves until stopped; returns the exit code."""
    return common.run(serve, make_parser().parse_args(argv))


def serve(args: argparse.Namespace) -> int:
    """Runs the service; returns the exit code."""
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
            # Time for a request that has just started to arrive, and for its response.
            timeout_graceful_shutdown=math.ceil(2 * limits.timeout),
        )
    )
    # After stopping, uvicorn raises the signal again for its caller; there is none.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    text = "port to listen on; 0 picks a free port"
    add("--port", type=common.number(int, 0, 65535), default=8000, help=text)
    common.add_predictor(parser)
    text = "accepted values of the Host header; *.example.org for all subdomains (default: any)"
    add("--allowed_hosts", type=_host, nargs="+", default=["*"], metavar="HOST", help=text)
    group = parser.add_argument_group("limits")
    for flag, kind, least, default, text in (
        ("--max_upload_mb", float, 1e-6, 20, "maximum size of a request, in MB"),
        ("--max_images", int, 1, 16, "maximum images per request"),
        ("--max_megapixels", float, 1e-6, 25, "maximum size of an image, in megapixels"),
        ("--max_faces", int, 1, 256, "maximum faces per request"),
        ("--max_requests", int, 1, 32, "maximum concurrent predictions; further requests get status 429"),
        ("--timeout", float, 1e-3, 30, "time limit for answering a received request, in seconds"),
    ):
        group.add_argument(flag, type=common.number(kind, least), default=default, metavar="N", help=text)
    return parser


def _host(text: str) -> str:
    if not re.fullmatch(r"\*|(\*\.)?[^*]+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a host, *.DOMAIN, or *")
    return text
