"""Helpers for tests of the service: image files, requests, and detectors that block."""

import itertools
import threading

import numpy as np
from helpers import encode
from PIL import Image

from fer_jax.inference.detection.detectors import Detector, FullImage
from fer_jax.inference.structures import Box, Detection

LONG = 60  # seconds, far more than any test takes
IMAGE = b'content-disposition: form-data; name="images"; filename='


class Halves(Detector):
    """A detector that returns the left and right half of every image as faces, with a score of 0.5."""

    def detect(self, image, *args, **kwargs):
        height, width = image.shape[:2]
        boxes = [Box(left, 0.0, width / 2, float(height)) for left in (0.0, width / 2)]
        return [Detection(box, 0.5, box) for box in boxes]


class Gate(FullImage):
    """A detector that waits for `open` for every image except the first one, from the service's start."""

    def __init__(self, held=1, error=None):
        self.open, self.begun, self.count = threading.Event(), threading.Event(), itertools.count()
        self.held, self.error = held, error

    def detect(self, image, *args, **kwargs):
        if next(self.count) >= self.held:
            self.begun.set()
            assert self.open.wait(LONG)
            if self.error:
                raise self.error
        return super().detect(image)


def colors(height=40, width=30):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


# 30 x 40 pixels, in every accepted format.
KINDS = [
    *(encode(colors(), kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")),
    encode(colors(), "JPEG", progressive=True),
    encode(colors(), "TIFF", compression="tiff_lzw"),
    encode(colors(), "GIF", save_all=True, append_images=[colors().rotate(90)]),
    encode(colors().quantize(8), transparency=3),
    encode(colors().convert("CMYK"), "JPEG"),
    *(encode(colors().convert(mode)) for mode in ("1", "RGBA")),
    encode(np.arange(1200, dtype=np.uint16).reshape(40, 30) * 50),
]


def form(*parts, boundary="edge"):
    """Returns the body and headers of a form with unmodified parts."""
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    return {"content": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


def post(client, *contents, **params):
    """Requests predictions of images, named 0.png, 1.png, ..."""
    files = [("images", (f"{number}.png", content)) for number, content in enumerate(contents)]
    return client.post("/predict", files=files, params=params)
