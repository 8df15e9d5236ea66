"""The HTTP service against what schemathesis makes of its OpenAPI, and against tampered images."""

import random

import numpy as np
import pytest
from helpers import needed
from PIL import Image

needed("fastapi", "serve")
schemathesis = needed("schemathesis", "test")

import hypothesis  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from hypothesis import strategies  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_service import encode  # noqa: E402

from fer_jax.inference import classifier  # noqa: E402
from fer_jax.inference.classifier import Classifier  # noqa: E402
from fer_jax.inference.detection.detectors import FullImage  # noqa: E402
from fer_jax.inference.predictor import Predictor  # noqa: E402
from fer_jax.inference.service.service import create_app  # noqa: E402
from fer_jax.loaded_model import LoadedModel  # noqa: E402

TAMPERED = 300  # images
EXAMPLES = 30  # of an operation
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],  # without the search for the smallest example
    suppress_health_check=list(hypothesis.HealthCheck),
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def originals():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    kinds = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
    return [
        *(encode(picture, kind) for kind in kinds),
        encode(picture, "TIFF", compression="tiff_lzw"),
        encode(picture.quantize(8), transparency=3),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "GIF", save_all=True, append_images=[picture.rotate(90)]),
    ]


@pytest.fixture(scope="module")
def app(tiny_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "SIZES", (1, 4))  # that are compiled
        yield create_app(Predictor(Classifier(LoadedModel(tiny_run)), FullImage()))


def tamper(content, rng):
    """With bytes changed, added, taken out, or cut off; often in the header."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not content:
            break
        place = rng.randrange(rng.choice((len(content), min(len(content), 100))))
        match rng.randrange(5):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                content[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 2:
                del content[place : place + rng.randrange(1, 20)]
            case 3:
                content[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                del content[place + 1 :]
    return bytes(content)


def test_images_that_were_tampered_with(app):
    rng, made, statuses = random.Random(0), originals(), []
    with TestClient(app) as client:
        while client.get("/ready").status_code != 200:
            pass
        for number in range(TAMPERED):
            content = tamper(rng.choice(made), rng)
            statuses.append(client.post("/predict", files={"images": ("image", content)}).status_code)
            assert statuses[-1] in (200, 422), number
    assert {200, 422} == set(statuses)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_whatever_a_client_sends(app, mode):
    """No reply is a server error, and each is one that OpenAPI names, of its type and form."""
    images = strategies.sampled_from(originals()) | strategies.binary(max_size=200)
    schemathesis.openapi.format("binary", images)
    statuses = set()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    while schema["/ready"]["GET"].Case().call().status_code != 200:
        pass  # schemathesis starts the service itself
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get":
            continue  # has nothing that could be wrong

        @hypothesis.given(case=operation.as_strategy(mode))
        @hypothesis.settings(SETTINGS)
        def send(case):
            reply = case.call()
            statuses.add(reply.status_code)
            case.validate_response(reply, checks=CHECKS)

        send()
    assert {422} <= statuses and max(statuses) < 500
