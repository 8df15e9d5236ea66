"""Tests the service with requests that schemathesis generates from its OpenAPI, and with damaged images."""

import hypothesis
import pytest
import schemathesis
from clients import KINDS
from hypothesis import strategies
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

NAMES = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
CHECKS = [checks.not_a_server_error, *(getattr(openapi_checks, name) for name in NAMES)]
HOW = {"deadline": None, "derandomize": True, "database": None, "phases": [hypothesis.Phase.generate]}
HOW["suppress_health_check"] = list(hypothesis.HealthCheck)


@strategies.composite
def tampered(draw):
    """Returns an image with bytes changed, inserted, removed, or truncated, often in the header."""
    content = bytearray(draw(strategies.sampled_from(KINDS)))
    header = strategies.integers(0, 99)
    for _ in range(draw(strategies.sampled_from((1, 1, 2, 8)))):
        start = min(draw(header | strategies.integers(0, 5000)), len(content))
        taken = draw(strategies.sampled_from((0, 1, 4, 19, len(content))))
        content[start : start + taken] = draw(strategies.binary(max_size=8))
    return bytes(content)


def test_images_that_were_tampered_with(serve):
    client, statuses = serve(), set()

    @hypothesis.given(tampered())
    @hypothesis.settings(max_examples=300, **HOW)
    def send(content):
        statuses.add(client.post("/predict", files={"images": ("image", content)}).status_code)
        assert statuses <= {200, 422}

    send()
    assert statuses == {200, 422}


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_whatever_a_client_sends(serve, mode):
    """No reply is a server error, and each conforms to the OpenAPI schema."""
    images = strategies.sampled_from(KINDS) | strategies.binary(max_size=200)
    schemathesis.openapi.format("binary", images)
    statuses, app = set(), serve().app
    # Converted to OpenAPI 3.0, for which schemathesis accepts strategies.
    form = app.openapi()["components"]["schemas"]["Body_predict_predict_post"]["properties"]
    form["images"]["items"] = {"type": "string", "format": "binary"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    while schema["/ready"]["GET"].Case().call().status_code != 200:
        pass  # schemathesis starts the service itself
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get":
            continue  # takes no arguments

        @hypothesis.given(case=operation.as_strategy(mode))
        @hypothesis.settings(max_examples=30, **HOW)
        def send(case):
            reply = case.call()
            statuses.add((case.operation.path, reply.status_code))
            case.validate_response(reply, checks=CHECKS)

        send()
    wanted = 200 if mode is schemathesis.GenerationMode.POSITIVE else 422
    assert ("/predict", wanted) in statuses and max(status for _, status in statuses) < 500
