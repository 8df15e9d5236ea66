"""How the HTTP service bears load, against the predictor alone.

    python benchmarks/service.py --seconds 120

Starts `fer-jax serve` as a process of its own. Clients on the loopback each send the next request when they
have the reply to the last; every other request is a face of 48 px (PNG, detect=false), the others photographs
of 512 px with four faces (JPEG), all built-in synthetic ones. Clients and server share the processors.

First the service alone: replies a second, latencies, errors, and the server's memory every second. Then, in
turns with it, the peer: the same predictor in this process, which decodes and predicts the same images one
after the other. Last, requests of large images (25 megapixels in a PNG of 84 kB), and the memory that they
leave. Bars: no error; over the second half of the load and after the large images no more than 2 % or 10 MB
of memory added.
"""

import argparse
import asyncio
import contextlib
import dataclasses
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import httpx2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from fer_jax import Predictor  # noqa: E402
from fer_jax.data.sources import synthetic  # noqa: E402

PHOTO, FACES = 512, 4  # side in pixels; faces in it
GROWTH = 0.02, 10e6  # of the memory: as a share, or bytes
WARM_UP = 10  # seconds of load before anything is measured
TURNS, TURN_SECONDS = 4, 10
STOP_SECONDS = 90
LARGE = 5000  # side in pixels

Request = tuple[str, bytes]  # path and query; the image


@dataclasses.dataclass(frozen=True)
class Load:
    """What came of a stretch of load.

    Attributes:
      seconds: that it took.
      latencies: float [N], in seconds, of the requests that were answered with 200.
      errors: what went wrong, by its name or status.
      memory: of the server, in bytes, once a second.
    """

    seconds: float
    latencies: np.ndarray
    errors: dict[str, int]
    memory: list[float]

    @property
    def rate(self) -> float:
        """Returns the successful replies per second."""
        return len(self.latencies) / self.seconds


def draw_requests(count: int) -> list[Request]:
    """Faces and photographs in turn."""
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
def serve(*arguments: str) -> Iterator[str]:
    """Starts a server as a process of its own, yields its address when it is ready, and stops it at the end.

    Raises:
      RuntimeError: it did not start, or did not end with code 0.
    """
    command = [sys.executable, "-m", "fer_jax", "serve", "--port", "0", *arguments]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        address = None
        for line in server.stderr:
            if found := re.search(r"running on (http://\S+)", line):
                address = found[1]
                break
            sys.stderr.write(line)
        if not address:
            raise RuntimeError(f"{' '.join(command)} did not start")
        while httpx2.get(f"{address}/ready").status_code != httpx2.codes.OK:
            time.sleep(0.5)
        yield address
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        if code := server.wait(STOP_SECONDS):
            raise RuntimeError(f"{' '.join(command)} ended with code {code}")
    finally:
        server.kill()


async def measure(address: str, requests: list[Request], clients: int, seconds: float) -> Load:
    """Sends requests for some seconds."""
    latencies, errors, memory = [], {}, []
    started = time.perf_counter()
    turn = itertools.cycle(requests)
    limits = httpx2.Limits(max_connections=clients + 1)
    async with httpx2.AsyncClient(base_url=address, timeout=60, limits=limits) as client:

        async def send_on() -> None:
            while time.perf_counter() - started < seconds:
                path, image = next(turn)
                began = time.perf_counter()
                try:
                    reply = await client.post(path, files={"images": ("image", image)})
                    error = None if reply.status_code == httpx2.codes.OK else str(reply.status_code)
                except httpx2.HTTPError as failure:
                    error = type(failure).__name__
                if error is None:
                    latencies.append(time.perf_counter() - began)
                else:
                    errors[error] = errors.get(error, 0) + 1

        async def watch() -> None:
            while time.perf_counter() - started < seconds:
                text = (await client.get("/metrics")).text
                found = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
                memory.append(float(found[1]) if found else float("nan"))
                await asyncio.sleep(1)

        await asyncio.gather(watch(), *(send_on() for _ in range(clients)))
    return Load(time.perf_counter() - started, np.array(latencies), errors, memory)


def describe(load: Load) -> str:
    """Returns rate, latencies, errors and memory."""
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
    """Returns whether the second half, by the medians of its first and last quarter, adds next to nothing."""
    half = memory[len(memory) // 2 :]
    quarter = max(1, len(half) // 4)
    before, after = statistics.median(half[:quarter]), statistics.median(half[-quarter:])
    return after - before <= max(GROWTH[0] * before, GROWTH[1])


def predict_alone(predictor: Predictor, requests: list[Request], seconds: float) -> float:
    """Returns images a second of the predictor without a service around it."""
    started = time.perf_counter()
    for count, (path, image) in enumerate(itertools.cycle(requests), start=1):
        predictor([image], detected="detect=false" not in path)
        if (passed := time.perf_counter() - started) >= seconds:
            return count / passed


def send_large(address: str) -> float:
    """Sends two requests of two large images at the same time; returns the bytes that they leave in use."""
    pixels = np.zeros((LARGE, LARGE, 3), np.uint8)
    pixels[..., 1] = 9
    files = [("images", ("large", _encode(Image.fromarray(pixels), "PNG")))] * 2

    async def send() -> None:
        async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
            replies = await asyncio.gather(*(client.post("/predict", files=files) for _ in range(2)))
            for reply in replies:
                reply.raise_for_status()

    before = asyncio.run(measure(address, [], 0, 0.0)).memory[-1]
    asyncio.run(send())
    return asyncio.run(measure(address, [], 0, 0.0)).memory[-1] - before


def main() -> int:
    """Prints all measurements; the exit code is 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120, help="of load on the service alone")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--detector", default="yunet")
    args = parser.parse_args()
    requests = draw_requests(16)

    def load(address: str, seconds: float) -> Load:
        return asyncio.run(measure(address, requests, args.clients, seconds))

    with serve("--model", args.model, "--detector", args.detector) as address:
        load(address, WARM_UP)
        whole = load(address, args.seconds)
        print(f"{args.clients} clients, {os.cpu_count()} cores\n{describe(whole)}", flush=True)
        predictor = Predictor.load(args.model, args.detector)
        predict_alone(predictor, requests, WARM_UP)
        rates = [
            (load(address, TURN_SECONDS).rate, predict_alone(predictor, requests, TURN_SECONDS))
            for _ in range(TURNS)
        ]
        left = send_large(address)
    for name, turns in zip(("service", "predictor alone"), zip(*rates, strict=True), strict=True):
        print(f"in turns, {name:15s}: {', '.join(f'{turn:.1f}' for turn in turns)} images/s")
    ratio = statistics.median(one / other for one, other in rates)
    print(f"the service answers {ratio:.2f} times as many images; large images leave {1e-6 * left:.0f} MB")
    flat = is_flat(whole.memory) and left <= max(GROWTH[0] * whole.memory[-1], GROWTH[1])
    failed = bool(whole.errors)
    print(f"bars: errors {'MISSED' if failed else 'met (none)'}, memory {'met (flat)' if flat else 'MISSED'}")
    return int(failed or not flat)


if __name__ == "__main__":
    sys.exit(main())
