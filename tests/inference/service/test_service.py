"""Tests the service's replies: predictions, unusable images, and information about the service."""

import re
import tempfile

import numpy as np
import pytest
from clients import IMAGE, KINDS, Halves, colors, form, post
from helpers import encode, png_that_declares

from fer_jax import __version__
from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.service import schemas, service
from fer_jax.pretrained.loaded_model import LoadedModel


def test_answers_as_the_network_does(serve, tiny_run, faces):
    client = serve()
    reply = post(client, *(encode(face) for face in faces), detect=False)
    assert reply.status_code == 200
    probabilities = LoadedModel(tiny_run).predict(faces, progress=False)
    for number, (image, row) in enumerate(zip(reply.json()["images"], probabilities, strict=True)):
        assert (image["source"], image["width"], image["height"]) == (f"{number}.png", 48, 48)
        (face,) = image["faces"]
        assert image["error"] is None and face["detection_score"] == 1
        assert face["box"] == {"left": 0, "top": 0, "width": 48, "height": 48}
        assert face["emotion"] == EMOTIONS[row.argmax()] and face["unsure"] == bool(row.max() < 0.5)
        assert tuple(face["probabilities"]) == EMOTIONS
        np.testing.assert_allclose(list(face["probabilities"].values()), row, atol=2e-6)
        assert face["confidence"] == max(face["probabilities"].values())
    text = client.get("/metrics").text
    counts = ('requests_total{path="/predict",status="200"} 1', 'images_total{outcome="read"} 7')
    for line in (*counts, 'request_seconds_count{path="/predict"} 1', "running_predictions 0"):
        assert f"fer_jax_{line}.0\n" in text


def test_faces_are_the_detectors_unless_the_image_is_one(serve, tiny_run, faces):
    client, pair = serve(Halves()), np.concatenate([faces[2], faces[3]], axis=1)
    (image,) = post(client, encode(pair)).json()["images"]
    assert (image["width"], image["height"]) == (96, 48)
    expected = LoadedModel(tiny_run).predict(faces[2:4], progress=False)
    for face, row, left in zip(image["faces"], expected, (0, 48), strict=True):
        assert face["box"] == {"left": left, "top": 0, "width": 48, "height": 48}
        assert face["detection_score"] == 0.5
        np.testing.assert_allclose(list(face["probabilities"].values()), row, atol=2e-6)
    (whole,) = post(client, encode(pair), detect=False).json()["images"]
    assert [face["box"]["width"] for face in whole["faces"]] == [96]
    # The two most likely emotions of the first face.
    (image,) = post(client, encode(pair), top=2).json()["images"]
    best = np.argsort(-expected[0])[:2]
    assert list(image["faces"][0]["probabilities"]) == [EMOTIONS[i] for i in best]


def test_an_unreadable_image_does_not_spoil_the_others(serve, faces):
    client, good = serve(), encode(faces[0])
    alone = post(client, good).json()["images"][0]["faces"]
    reply = post(client, b"no image", good, good[:200], b"")
    assert reply.status_code == 200
    images = reply.json()["images"]
    assert images[1]["faces"] == alone and images[1]["error"] is None
    for place, why in ((0, "not an image that can be read"), (2, "."), (3, "not an image")):
        assert images[place]["faces"] == [] and images[place]["width"] is None
        assert re.match(rf"{place}\.png: cannot be decoded: .*{why}", images[place]["error"])
    assert 'fer_jax_images_total{outcome="unreadable"} 3.0\n' in client.get("/metrics").text
    # If no image is usable, the request is invalid.
    reply = post(client, b"no image", good[:200])
    assert reply.status_code == 422
    assert re.match(r"0\.png: cannot be .*; 1\.png: cannot be ", reply.json()["detail"])


TOO_LARGE = {"bomb": png_that_declares(30_000, 30_000), "large": png_that_declares(5_001, 5_000)}
BROKEN = TOO_LARGE | {"cut off": encode(colors(), "JPEG")[:-300], "empty": b"", "HTML": b"<html></html>"}


def test_kinds_of_images(serve):
    images = post(serve(), *KINDS[:8]).json()["images"] + post(serve(), *KINDS[8:]).json()["images"]
    for image in images:
        assert image["error"] is None and (image["width"], image["height"]) == (30, 40), image
        assert len(image["faces"]) == 1
    assert len(images) == len(KINDS)
    (smallest,) = post(serve(Halves()), encode(np.zeros((1, 1), np.uint8))).json()["images"]
    assert smallest["width"] == 1 and len(smallest["faces"]) == 2


def test_broken_images(serve, capfd):
    client = serve()
    for name, content in BROKEN.items():
        reply = client.post("/predict", files={"images": (f"{name}.jpg", content)})
        detail = reply.json()["detail"]
        assert reply.status_code == 422 and detail.startswith(f"{name}.jpg: ") and "/" not in detail, name
        refused = "above the limit of 25,000,000; it was not decoded" in detail
        assert refused == (name in TOO_LARGE), name
    assert "Traceback" not in capfd.readouterr().err


def test_names_are_only_repeated(serve, faces):
    names = {
        b'"../../etc/passwd"': "../../etc/passwd",
        b'"a\tb\x7f.png"': "a?b?.png",
        "gesicht ü 顔.png".encode().join((b'"', b'"')): "gesicht ü 顔.png",
        b'"%s"' % (b"x" * 500): "x" * 100,
        '"\u202egpj"'.encode(): "?gpj",
        b'"\xe9\xff.png"': "éÿ.png",
        b'""': "image 6",
        b'"\x00"': "?",
    }
    content = encode(faces[0])
    reply = serve().post("/predict", **form(*(IMAGE + name + b"\r\n\r\n" + content for name in names)))
    assert [image["source"] for image in reply.json()["images"]] == list(names.values())


def test_memory_of_a_large_image_is_returned_once_it_is_gone(serve, monkeypatch):
    returned = []
    monkeypatch.setattr(service, "_return_memory", lambda: returned.append(1))
    client = serve()
    assert post(client, encode(np.zeros((2000, 1999), np.uint8))).status_code == 200 and not returned
    assert post(client, encode(np.zeros((2000, 2000), np.uint8))).status_code == 200 and returned


def test_nothing_is_written_to_temporary_files(serve, monkeypatch):
    """Frameworks store large uploads there, and Pillow's TIFF decoder may need a real file."""
    large = [encode(colors(1500, 1000), kind) for kind in ("PNG", "TIFF", "BMP")]
    assert all(len(content) > 4_000_000 for content in large)
    client = serve()
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")  # writing there fails
    with pytest.raises(FileNotFoundError):
        tempfile.TemporaryFile()
    assert [image["error"] for image in post(client, *large).json()["images"]] == [None] * 3


def test_what_the_service_says_about_itself(serve, tiny_run):
    client = serve()
    model = client.get("/model").json()
    assert model["name"] == "cnn_relu" and model["emotions"] == list(EMOTIONS)
    assert model["weights"] == tiny_run.name and str(tiny_run.parent) not in str(model)
    assert tuple(model["evaluation"].values()) == ("accuracy", 0.5, "validation", True)
    assert model["input"] == {"side": 48, "image_size": 48, "channels": 1, "mean": 0.5, "std": 0.25}
    assert model["licence"] == "chosen by the authors of the weights"
    assert "do not use it to judge people" in model["intended_use"]
    api, root = (client.get(path).json() for path in ("/openapi.json", "/"))
    assert (root["name"], root["version"]) == ("fer_jax", __version__)
    assert set(root["routes"]) == {*api["paths"], "/docs", "/openapi.json"}
    assert set(api["paths"]) == {"/", "/predict", "/model", "/health", "/ready", "/metrics"}
    assert all(route.startswith("/") and what.endswith(".") for route, what in root["routes"].items())
    operation = api["paths"]["/predict"]["post"]
    assert list(operation["requestBody"]["content"]) == ["multipart/form-data"]
    assert set(operation["responses"]) == {"200", "400", "413", "415", "422", "429", "503"}
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert all(f"{path}</code></h2>" in page.text for path in api["paths"])
    assert not re.search(r"<script|<link|src=|https?://(?!testserver)", page.text)  # it loads nothing
    # The metrics count all unknown paths together.
    assert {client.get(path).status_code for path in ("/redoc", "/doc")} == {404}
    assert 'fer_jax_requests_total{path="other",status="404"} 2.0\n' in client.get("/metrics").text


def test_the_shipped_weights_have_a_licence():
    model = schemas.describe_model(Predictor.load("cnn_250k", "whole"))
    assert model.name == "cnn_250k"
    assert model.weights == "cnn_250k_fer2013.safetensors" and model.licence == "Apache-2.0"
    assert round(100 * model.evaluation.value, 2) == 67.34 and model.evaluation.selected  # as in its card
    assert round(model.temperature, 3) == 0.862 and model.parameters == 241_679
