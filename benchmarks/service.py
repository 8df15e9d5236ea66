"""Measures the HTTP service under load, compared with the predictor alone.

    python benchmarks/service.py --seconds 120

Starts `fer-jax serve` as a child process. Each client on the loopback interface sends its next request after
the reply to the previous one. Every other request is a face of 48 px (PNG, detect=false); the others are
photographs of 512 px with four faces (JPEG). All faces are synthetic. Clients and server share the CPU cores.

The first part measures the service alone: replies per second, latencies, errors, and the server's memory once
per second. The second part alternates between the service and the peer: the same predictor in this process,
which decodes and predicts the same images sequentially. The third part sends requests of large images (25
megapixels in a PNG of 84 kB) and measures the memory that stays in use. The goals are no errors, and at most
2 % or 10 MB of additional memory over the second half of the load and after the large images.
"""

import argparse
import collections
import contextlib
import io
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx2
import numpy as np
from PIL import Image

from fer_jax import Predictor
from fer_jax.commands import common
from fer_jax.data.sources import synthetic
from fer_jax.errors import ExplainedError

PHOTO, FACES = 512, 4  # side in pixels, and number of faces
GROWTH = 0.02, 10e6  # maximum growth of memory, relative or in bytes
WARM_UP = 10  # seconds of load before measuring
TURNS, TURN_SECONDS = 4, 10
STOP_SECONDS = 90
LARGE = 5000  # side in pixels

Request = tuple[str, bytes]  # path with query, and image


class Load(NamedTuple):
    """The measurements of a period of load."""

    seconds: float
    latencies: list[float]  # latencies of successful requests, in seconds
    errors: dict[str, int]  # number of occurrences of each error
    memory: list[float]  # the server's memory in bytes, once per second

    @property
    def rate(self) -> float:
        """Returns successful replies per second."""
        return len(self.latencies) / self.seconds


def draw_requests(count: int) -> list[Request]:
    """Returns requests with faces and photographs, alternating."""
    faces = synthetic.generate(count, seed=0, split="test")[0][..., 0]
    requests = []
    for number in range(count):
        four = faces[FACES * number : FACES * (number + 1)]
        requests.append(("/predict?detect=false", _encode(Image.fromarray(four[0]), "PNG")))
        photo = Image.new("RGB", (PHOTO, PHOTO), (90, 110, 130))
        for place, face in zip(itertools.product((40, 290), repeat=2), four, strict=True):
            photo.paste(Image.fromarray(face).resize((180, 180), Image.Resampling.BICUBIC), place)
        requests.append(("/predict", _encode(photo, "JPEG")))
    return requests


def _encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@contextlib.contextmanager
def serve(*arguments: str) -> Iterator[httpx2.Client]:
    """Starts the service, and yields a client once it is ready.

    Raises:
      ExplainedError: the service does not start, or its exit code is not 0.
    """
    command = [sys.executable, "-m", "fer_jax", "serve", "--port", "0", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        printed = ""
        while not (found := re.search(r"running on (http://\S+)", printed)):
            if not (line := server.stderr.readline()):
                raise ExplainedError(f"{' '.join(command)} did not start:\n{printed}")
            printed += line
        limits = httpx2.Limits(max_connections=None)
        with httpx2.Client(base_url=found[1], timeout=60, limits=limits) as client:
            while client.get("/ready").status_code != httpx2.codes.OK:
                time.sleep(0.5)
            yield client
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        if code := server.wait(STOP_SECONDS):
            raise ExplainedError(f"{' '.join(command)} ended with code {code}")
    finally:
        server.kill()


def memory_of(client: httpx2.Client) -> float:
    """Returns the server's resident memory in bytes; NaN if it is not reported."""
    found = re.search(r"^process_resident_memory_bytes (\S+)", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else float("nan")


def measure(client: httpx2.Client, requests: list[Request], clients: int, seconds: float) -> Load:
    """Sends requests from several clients for some seconds."""
    latencies, errors, memory = [], collections.Counter(), []
    started, turn = time.perf_counter(), itertools.cycle(requests)

    def send(_: int) -> None:
        while (began := time.perf_counter()) < started + seconds:
            path, image = next(turn)
            try:
                client.post(path, files={"images": ("image", image)}).raise_for_status()
                latencies.append(time.perf_counter() - began)
            except httpx2.HTTPError as error:
                errors[str(getattr(error, "response", error))] += 1

    with ThreadPoolExecutor(clients) as threads:
        sending = threads.map(send, range(clients))
        while time.perf_counter() < started + seconds:
            memory.append(memory_of(client))
            time.sleep(1)
        list(sending)  # re-raises the clients' exceptions
    return Load(time.perf_counter() - started, latencies, errors, memory)


def describe(load: Load) -> str:
    """Returns the rate, latencies, errors, and memory as text."""
    p50, p95, p99 = (1e3 * value for value in np.percentile(load.latencies, (50, 95, 99)))
    start, middle, end = (1e-6 * load.memory[place] for place in (0, len(load.memory) // 2, -1))
    return (
        f"{load.rate:.1f} replies/s over {load.seconds:.0f} s ({len(load.latencies):,} replies, errors: "
        f"{load.errors or 0})\n"
        f"latency: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms\n"
        f"memory of the server: {start:.0f} MB at the start, {middle:.0f} MB in the middle, {end:.0f} MB at "
        "the end"
    )


def is_flat(memory: list[float]) -> bool:
    """Returns whether memory grows within GROWTH from the first to the last quarter of the second half."""
    half = memory[len(memory) // 2 :]
    quarter = max(1, len(half) // 4)
    before, after = statistics.median(half[:quarter]), statistics.median(half[-quarter:])
    return after - before <= max(GROWTH[0] * before, GROWTH[1])


def predict_alone(predictor: Predictor, requests: list[Request], seconds: float) -> float:
    """Returns images per second of the predictor without the service."""
    started = time.perf_counter()
    for count, (path, image) in enumerate(itertools.cycle(requests), start=1):
        predictor([image], detected="detect=false" not in path)
        if (passed := time.perf_counter() - started) >= seconds:
            return count / passed


def send_large(client: httpx2.Client) -> float:
    """Sends two concurrent requests of two large images; returns by how many bytes memory has grown."""
    pixels = np.zeros((LARGE, LARGE, 3), np.uint8)
    pixels[..., 1] = 9
    files = [("images", ("large", _encode(Image.fromarray(pixels), "PNG")))] * 2
    before = memory_of(client)
    with ThreadPoolExecutor(2) as threads:
        for reply in threads.map(lambda _: client.post("/predict", files=files), range(2)):
            reply.raise_for_status()
    return memory_of(client) - before


def main() -> int:
    parser = common.plain_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="duration of the load")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--model", default="cnn_1m_64")
    parser.add_argument("--detector", default="yunet")
    return common.run(benchmark, parser.parse_args())


def benchmark(args: argparse.Namespace) -> int:
    """Prints all measurements; returns 1 if a goal is missed."""
    requests = draw_requests(16)
    with serve("--model", args.model, "--detector", args.detector) as client:
        measure(client, requests, args.clients, WARM_UP)
        whole = measure(client, requests, args.clients, args.seconds)
        print(f"{args.clients} clients, {os.cpu_count()} cores\n{describe(whole)}", flush=True)
        predictor = Predictor.load(args.model, args.detector)
        predict_alone(predictor, requests, WARM_UP)
        rates = []
        for _ in range(TURNS):
            own = measure(client, requests, args.clients, TURN_SECONDS).rate
            rates.append((own, predict_alone(predictor, requests, TURN_SECONDS)))
        left = send_large(client)
    for name, turns in zip(("service", "predictor alone"), zip(*rates, strict=True), strict=True):
        print(f"in turns, {name:15s}: {', '.join(f'{turn:.1f}' for turn in turns)} images/s")
    ratio = statistics.median(one / other for one, other in rates)
    print(f"the service has {ratio:.2f} times the throughput; large images leave {1e-6 * left:.0f} MB in use")
    flat = is_flat(whole.memory) and left <= max(GROWTH[0] * whole.memory[-1], GROWTH[1])
    failed = bool(whole.errors)
    print(
        f"goals: errors {'MISSED' if failed else 'met (none)'}, memory {'met (flat)' if flat else 'MISSED'}"
    )
    return int(failed or not flat)


if __name__ == "__main__":
    sys.exit(main())
