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

from fer_jax.commands import common


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
        ("--timeout", float, 1e-3, 30, "seconds within which a received request must be answered"),
    ):
        group.add_argument(flag, type=common.number(kind, least), default=default, metavar="N", help=text)
    return parser


def _host(text: str) -> str:
    if not re.fullmatch(r"\*|(\*\.)?[^*]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host, *.DOMAIN or *")
    return text
