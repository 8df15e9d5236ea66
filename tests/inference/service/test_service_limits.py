"""Tests the service's limits and states, rejected requests, and the content of logs and error replies."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients import IMAGE, LONG, Gate, Halves, form, post
from helpers import encode


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"content": b"x"}, 415, "the content type is ''; expected multipart/form-data"),
        ({"json": {}}, 415, "the content type is 'application/json'; expected"),
        ({"data": {"images": "x"}}, 415, "'application/x-www-form-urlencoded'; expected"),
        (form(boundary="other"), 400, "Invalid multipart data"),
        (form(), 422, "images: Field required"),
        ({**form(), "headers": {"content-type": "multipart/form-data"}}, 400, "Missing boundary"),
        (form(b"content-disposition: form-data\r\n\r\n1"), 400, '"name" must be provided'),
        (form(b"\r\n\r\n1"), 400, '"name" must be provided'),
        (form(IMAGE.replace(b"images", b"image") + b'"a"\r\n\r\n1'), 422, "images: Field required"),
        (form(IMAGE.partition(b"; file")[0] + b"\r\n\r\n1"), 422, "images.0: .*Expected UploadFile"),
        ({"params": {"top": 0}, **form()}, 422, "top: Input should be greater than or equal to 1"),
        ({"params": {"top": 8}, **form()}, 422, "top: Input should be less than or equal to 7"),
        ({"params": {"detect": "perhaps"}, **form()}, 422, "detect: Input should be a valid boolean"),
        (form(*[IMAGE + b'"a"\r\n\r\nx'] * 17), 400, "Too many files. Maximum number of files is 16"),
    ],
)
def test_requests_that_are_refused(serve, request_, status, detail, capfd):
    reply = serve().post("/predict", **request_)
    assert reply.status_code == status and set(reply.json()) == {"detail"}
    assert re.search(detail, reply.json()["detail"])
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("declared", "taken"), [(b"", 6), (b"4000", 6), (b"5001", 0)])
def test_a_body_is_refused_when_it_gets_too_large_whatever_its_header_says(serve, declared, taken):
    client, chunks, sent = serve(upload_bytes=5000), itertools.count(), []

    async def receive():
        start = b"--edge\r\n" + IMAGE + b'"a"\r\n\r\n'
        body = bytes(1000) if next(chunks) else start.ljust(1000)
        return {"type": "http.request", "body": body, "more_body": True}  # endless

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=edge"), (b"content-length", declared)]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    client.portal.call(client.app, scope, receive, send)
    assert sent[0]["status"] == 413 and next(chunks) == taken
    assert sent[1]["body"] == b'{"detail":"the request exceeds the limit of 5,000 bytes"}'


def test_too_many_faces(serve, faces):
    client, image = serve(Halves(), faces=4), encode(faces[0])
    assert post(client, image, image).status_code == 200
    reply = post(client, image, image, image)
    assert reply.status_code == 422
    assert (
        reply.json()["detail"] == "the images have 6 faces, more than the limit of 4 per request: send fewer"
    )


def test_too_many_requests(serve, faces):
    gate, image = Gate(), encode(faces[0])
    client = serve(gate, requests=1)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(post, client, image)
        assert gate.begun.wait(LONG)
        running, refused = client.get("/metrics").text, post(client, image)
        gate.open.set()
    assert "fer_jax_running_predictions 1.0\n" in running
    assert accepted.result().status_code == 200 and refused.status_code == 429
    assert refused.headers["retry-after"] == "1" and "1 predictions are in progress" in refused.text
    assert post(client, image).status_code == 200


def test_what_takes_too_long(serve, faces):
    gate = Gate()
    client = serve(gate, timeout=0.2)
    undone = post(client, encode(faces[0]))
    gate.open.set()
    assert (undone.status_code, undone.json()) == (503, {"detail": "timed out after 0.2 seconds"})
    assert "fer_jax_running_predictions 0.0\n" in client.get("/metrics").text


def test_not_ready_before_the_network_is_compiled(serve, faces):
    gate = Gate(held=0)
    client = serve(gate, ready=False)
    for reply in (client.get("/ready"), post(client, encode(faces[0]))):
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert reply.json() == {"detail": "the network is not compiled yet"}
    assert client.get("/health").json() == {"status": "alive"}
    gate.open.set()
    while (reply := client.get("/ready")).status_code == 503:
        pass
    assert reply.json() == {"status": "ready"}
    assert post(client, encode(faces[0])).status_code == 200


def test_a_network_that_cannot_be_run_shows(serve, caplog):
    gate = Gate(held=0, error=RuntimeError("no such processor"))
    gate.open.set()
    client = serve(gate, ready=False)
    while client.get("/health").status_code == 200:
        pass
    assert client.get("/ready").status_code == 503
    assert "the service will not become ready" in caplog.text and "no such processor" in caplog.text


def test_an_error_of_the_service_is_not_told_to_strangers(serve, faces):
    gate = Gate(error=RuntimeError("/secret/path"))
    gate.open.set()
    client = serve(gate)
    reply = post(client, encode(faces[0]))
    assert (reply.status_code, reply.json()) == (500, {"detail": "internal error; see the log"})
    assert 'fer_jax_requests_total{path="/predict",status="500"} 1.0\n' in client.get("/metrics").text


def test_other_hosts_are_refused_when_asked_for(serve):
    client = serve(app={"allowed_hosts": ["example.org", "*.example.com", "testserver"]})
    for host, status in {"example.org:80": 200, "a.example.com": 200, "evil.org": 400}.items():
        assert client.get("/health", headers={"host": host}).status_code == status, host
    assert serve().get("/health", headers={"host": "evil.org"}).status_code == 200


def test_replies_close_their_connections_while_the_server_drains(serve):
    draining = []
    client = serve(app={"is_draining": lambda: bool(draining)})
    assert "connection" not in client.get("/health").headers
    draining.append(True)
    for reply in (client.get("/health"), client.get("/nowhere"), post(client, b"no image")):
        assert reply.headers["connection"] == "close"
