"""The HTTP service, in this process: answers, refusals, limits, broken images, and nothing on the disk."""

import asyncio
import contextlib
import io
import itertools
import re
import shutil
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from helpers import needed
from PIL import Image

from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import synthetic
from fer_jax.inference import classifier
from fer_jax.inference.classifier import Classifier
from fer_jax.inference.detection.detectors import Detector, FullImage
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import Box, Detection
from fer_jax.loaded_model import LoadedModel

needed("fastapi", "serve")
httpx2 = needed("httpx2", "test")

from fastapi.testclient import TestClient  # noqa: E402

from fer_jax.inference.service.service import Limits, create_app  # noqa: E402

LONG = 60  # seconds: no test comes near


class Halves(Detector):
    """Sees a face in the left half and one in the right half of every picture, sure of it by 0.5."""

    def detect(self, image, longest=0):
        height, width = image.shape[:2]
        boxes = [Box(left, 0.0, width / 2, float(height)) for left in (0.0, width / 2)]
        return [Detection(box, 0.5, box) for box in boxes]


class Gate(FullImage):
    """Waits for `open` before it looks at a picture, but for the first, which the warm-up shows."""

    def __init__(self):
        self.open, self.begun, self.count = threading.Event(), threading.Event(), itertools.count()

    def detect(self, image, longest=0):
        if next(self.count):
            self.begun.set()
            assert self.open.wait(LONG)
        return super().detect(image)


@pytest.fixture(scope="module")
def network(tiny_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "SIZES", (1, 4))  # that are compiled
        yield Classifier(LoadedModel(tiny_run))


@pytest.fixture
def serve(network):
    """Starts services; gives clients of them when they are ready."""
    with contextlib.ExitStack() as stack:

        def start(detector=None, ready=True, **limits):
            app = create_app(Predictor(network, detector or FullImage()), Limits(**limits))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            while ready and client.get("/ready").status_code != 200:
                pass
            return client

        yield start


@pytest.fixture(scope="module")
def faces():
    """uint8 [7, 48, 48, 1]."""
    return synthetic.generate(1, seed=5, split="test")[0]


def encode(array, kind="PNG", **options):
    file = io.BytesIO()
    image = (
        array
        if isinstance(array, Image.Image)
        else Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
    )
    image.save(file, kind, **options)
    return file.getvalue()


def files(*contents):
    return [("images", (f"{number}.png", content)) for number, content in enumerate(contents)]


def post(client, *contents, **params):
    return client.post("/predict", files=files(*contents), params=params)


def concurrently(client, *steps):
    """Runs coroutine functions of an asynchronous client at the same time, in the service's event loop."""

    async def run():
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=None) as one:
            return await asyncio.gather(*(step(one) for step in steps))

    return client.portal.call(run)


def test_answers_as_the_network_does(serve, tiny_run, faces):
    reply = post(serve(), *(encode(face) for face in faces), detect=False)
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


def test_faces_are_the_detectors_unless_the_picture_is_one(serve, tiny_run, faces):
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
    # The likeliest two of the first face, best first.
    (image,) = post(client, encode(pair), top=2).json()["images"]
    best = np.argsort(-expected[0])[:2]
    assert list(image["faces"][0]["probabilities"]) == [EMOTIONS[i] for i in best]


def test_requests_that_come_together_are_classified_together(serve, faces):
    gate = Gate()
    client = serve(gate, batch_wait=LONG, batch=8)

    async def ask(one):
        reply = await one.post("/predict", files=files(encode(faces[0]), encode(faces[1])))
        return reply.json()["images"]

    async def let_them(_):
        await asyncio.to_thread(gate.begun.wait, LONG)
        gate.open.set()

    *answers, _ = concurrently(client, ask, ask, ask, ask, let_them)
    assert all(answer == answers[0] for answer in answers)
    text = client.get("/metrics").text
    assert "fer_jax_batch_faces_count 1.0\n" in text and "fer_jax_batch_faces_sum 8.0\n" in text
    assert 'fer_jax_requests_total{path="/predict",status="200"} 4.0\n' in text
    assert 'fer_jax_images_total{outcome="read"} 8.0\n' in text
    assert "fer_jax_waiting_faces 0.0\n" in text and "fer_jax_running_predictions 0.0\n" in text


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
    # Where there is no other, the request is at fault.
    reply = post(client, b"no image", good[:200])
    assert reply.status_code == 422
    assert re.match(r"0\.png: cannot be .*; 1\.png: cannot be ", reply.json()["detail"])


def png_header(width, height):
    """A PNG that declares a size and has no such pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def colours():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


READABLE = {
    "16 bits": lambda: encode(np.arange(1200, dtype=np.uint16).reshape(40, 30) * 50),
    "animation": lambda: encode(colours(), "GIF", save_all=True, append_images=[colours().rotate(90)]),
    "black and white": lambda: encode(colours().convert("1")),
    "bmp": lambda: encode(colours(), "BMP"),
    "cmyk": lambda: encode(colours().convert("CMYK"), "JPEG"),
    "palette with transparency": lambda: encode(colours().quantize(8), transparency=3),
    "progressive": lambda: encode(colours(), "JPEG", progressive=True),
    "transparent": lambda: encode(colours().convert("RGBA")),
    "tiff, compressed": lambda: encode(colours(), "TIFF", compression="tiff_lzw"),
    "webp": lambda: encode(colours(), "WEBP"),
}
BROKEN = {
    "cut off": lambda: encode(colours(), "JPEG")[:-300],
    "empty": lambda: b"",
    "bomb": lambda: png_header(30_000, 30_000),
    "larger than allowed": lambda: png_header(5_001, 5_000),
    "a header's largest": lambda: png_header(2**31 - 1, 2**31 - 1),
    "no pixels": lambda: png_header(20, 20),
    "zeros": lambda: bytes(5000),
    "HTML": lambda: b"<html><body><img src=face.jpg></body></html>",
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "PostScript": lambda: encode(colours(), "EPS"),
    "webp, cut off": lambda: encode(colours(), "WEBP")[:-20],
    "webp of 268 megapixels": lambda: (
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2 + b"VP8L\0\0\0\0"
    ),
    "TIFF in a circle": lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
}


def test_kinds_of_images(serve):
    images = post(serve(), *(make() for make in READABLE.values())).json()["images"]
    for name, image in zip(READABLE, images, strict=True):
        assert image["error"] is None and (image["width"], image["height"]) == (30, 40), name
        assert len(image["faces"]) == 1, name
    (smallest,) = post(serve(Halves()), encode(np.zeros((1, 1), np.uint8))).json()["images"]
    assert smallest["width"] == 1 and len(smallest["faces"]) == 2


def test_broken_images(serve, capfd):
    client = serve()
    for name, make in BROKEN.items():
        reply = client.post("/predict", files={"images": (f"{name}.jpg", make())})
        assert reply.status_code == 422, name
        assert reply.json()["detail"].startswith(f"{name}.jpg: "), name
        assert "/" not in reply.json()["detail"], name
    for name in ("bomb", "larger than allowed", "a header's largest"):
        reply = client.post("/predict", files={"images": (name, BROKEN[name]())})
        assert "more than the limit of 25,000,000; it was not decoded" in reply.json()["detail"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("a\tb\x7f.png", "a%09b?.png"),  # browsers and clients write a tab as %09
        ("gesicht ü 顔.png", "gesicht ü 顔.png"),
        ("x" * 500, "x" * 100),
        ("\u202egpj", "?gpj"),
    ],
)
def test_names_are_only_repeated(serve, faces, name, shown):
    reply = serve().post("/predict", files={"images": (name, encode(faces[0]))})
    source = reply.json()["images"][0]["source"]
    assert source == shown or source == shown.replace("%09", "?")


def form(*parts, boundary="edge"):
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    return {"content": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


IMAGE = b'content-disposition: form-data; name="images"; filename='


def test_names_in_other_encodings(serve, faces):
    client = serve()
    parts = (IMAGE + name + b"\r\n\r\n" + encode(faces[0]) for name in (b'"\xe9\xff.png"', b'""', b'"\x00"'))
    reply = client.post("/predict", **form(*parts))
    assert reply.status_code == 200
    assert [image["source"] for image in reply.json()["images"]] == ["éÿ.png", "image 1", "?"]


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"content": b"x"}, 415, "the content type is ''; expected multipart/form-data"),
        ({"json": {}}, 415, "the content type is 'application/json'; expected"),
        ({"data": {"images": "x"}}, 415, "'application/x-www-form-urlencoded'; expected"),
        (form(boundary="other"), 400, "Invalid multipart data"),
        (form(), 422, "no field 'images'; its fields are: none"),
        ({**form(), "headers": {"content-type": "multipart/form-data"}}, 400, "Missing boundary"),
        (form(b"content-disposition: form-data\r\n\r\n1"), 400, "cannot|can be read"),
        (form(b"\r\n\r\n1"), 400, "can be read"),
        (form(b'content-disposition: form-data; name="image"\r\n\r\n1'), 422, "its fields are: 'image'"),
        (
            form(b'content-disposition: form-data; name="images"\r\n\r\n1'),
            422,
            "'images' is text; send files",
        ),
        ({"params": {"top": 0}, **form()}, 422, "top: Input should be greater than or equal to 1"),
        ({"params": {"top": 8}, **form()}, 422, "top: Input should be less than or equal to 7"),
        ({"params": {"detect": "perhaps"}, **form()}, 422, "detect: Input should be a valid boolean"),
        (form(*[IMAGE + b'"a"\r\n\r\nx'] * 17), 400, "Too many files. Maximum number of files is 16"),
    ],
)
def test_requests_that_are_refused(serve, request_, status, detail):
    reply = serve().post("/predict", **request_)
    assert reply.status_code == status and set(reply.json()) == {"detail"}
    assert re.search(detail, reply.json()["detail"])


def test_a_body_is_refused_when_it_gets_too_large_whatever_its_header_says(serve, faces):
    client, kind = serve(upload_bytes=5000), {"content-type": "multipart/form-data; boundary=edge"}
    taken = []

    async def endless():
        yield b"--edge\r\n" + IMAGE + b'"a"\r\n\r\n'
        while True:
            taken.append(1000)
            yield bytes(1000)

    def send(**headers):
        async def ask(one):
            return await one.post("/predict", content=endless(), headers=kind | headers)

        (reply,) = concurrently(client, ask)
        assert reply.status_code == 413
        assert reply.json()["detail"] == "the request has more than 5,000 bytes, the limit"

    send()
    assert sum(taken) == 5000
    send(**{"content-length": "4000"})
    assert sum(taken) == 10_000
    send(**{"content-length": "5001"})
    assert sum(taken) <= 11_000  # nothing had to be read
    assert post(client, encode(faces[0])).status_code == 200


def test_too_many_faces(serve, faces):
    client, image = serve(Halves(), faces=4), encode(faces[0])
    assert post(client, image, image).status_code == 200
    reply = post(client, image, image, image)
    assert reply.status_code == 422
    assert reply.json()["detail"] == "the images show 6 faces, more than the limit of 4 a request: send fewer"


def test_too_many_requests(serve, faces):
    gate = Gate()
    client = serve(gate, requests=1)

    async def ask(one):
        return await one.post("/predict", files=files(encode(faces[0])))

    async def ask_too(one):
        await asyncio.to_thread(gate.begun.wait, LONG)
        reply = await ask(one)
        gate.open.set()
        return reply

    accepted, refused = concurrently(client, ask, ask_too)
    assert accepted.status_code == 200 and refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json() == {"detail": "1 requests are being worked on"}
    assert post(client, encode(faces[0])).status_code == 200


def test_too_many_faces_waiting(serve, faces):
    """Two wait for a third; one that brings two more passes the limit of three."""
    client = serve(batch=3, batch_wait=LONG, waiting_faces=3)
    waiting = "fer_jax_waiting_faces 2.0"

    def ask(count):
        return lambda one: one.post("/predict", files=files(*[encode(faces[0])] * count))

    async def ask_too(one):
        while waiting not in (await one.get("/metrics")).text:
            await asyncio.sleep(0)  # which lets the others go on
        return await ask(2)(one), await ask(1)(one)

    first, (refused, last) = concurrently(client, ask(2), ask_too)
    assert first.status_code == last.status_code == 200
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.json() == {"detail": "too many faces are waiting"}


def test_what_takes_too_long(serve, faces):
    gate = Gate()
    client = serve(gate, timeout=0.5)

    async def stall(one):
        async def body():
            yield b"--edge\r\n"
            await asyncio.Event().wait()

        kind = {"content-type": "multipart/form-data; boundary=edge"}
        return await one.post("/predict", content=body(), headers=kind)

    (late,) = concurrently(client, stall)
    assert late.status_code == 408
    assert late.json() == {"detail": "the request did not arrive within 0.5 seconds"}
    undone = post(client, encode(faces[0]))
    gate.open.set()
    assert undone.status_code == 503 and undone.headers["retry-after"] == "1"
    assert undone.json() == {"detail": "not done within 0.5 seconds"}
    assert "fer_jax_running_predictions 0.0\n" in client.get("/metrics").text


class Stuck(FullImage):
    """Holds the warm-up up."""

    def __init__(self, error=None):
        self.open, self.error = threading.Event(), error

    def detect(self, image, longest=0):
        assert self.open.wait(LONG)
        if self.error:
            raise self.error
        return super().detect(image)


def test_not_ready_before_the_network_is_compiled(serve, faces):
    stuck = Stuck()
    client = serve(stuck, ready=False)
    for reply in (client.get("/ready"), post(client, encode(faces[0]))):
        assert reply.status_code == 503 and reply.headers["retry-after"] == "1"
        assert reply.json() == {"detail": "the network is not compiled yet"}
    assert client.get("/health").json() == {"status": "alive"}
    stuck.open.set()
    while (reply := client.get("/ready")).status_code == 503:
        pass
    assert reply.json() == {"status": "ready"}
    assert post(client, encode(faces[0])).status_code == 200


def test_a_network_that_cannot_be_run_shows(serve, caplog):
    stuck = Stuck(RuntimeError("no such processor"))
    stuck.open.set()
    client = serve(stuck, ready=False)
    while client.get("/health").status_code == 200:
        pass
    assert client.get("/ready").status_code == 503
    assert "the service never gets ready" in caplog.text and "no such processor" in caplog.text


def test_an_error_of_the_service_is_not_told_to_strangers(serve, faces):
    class Failing(FullImage):
        def detect(self, image, longest=0):
            if image.any():
                raise RuntimeError("/secret/path")
            return super().detect(image)

    client = serve(Failing())
    reply = post(client, encode(faces[0]))
    assert reply.status_code == 500
    assert reply.json() == {"detail": "an error of the service; it was logged"}
    assert 'fer_jax_requests_total{path="/predict",status="500"} 1.0\n' in client.get("/metrics").text


_written = None  # where the hook below, which can never be taken away, notes files opened for writing


def _note_writing(event, arguments):
    if event == "open" and _written is not None:
        path, mode, flags = arguments
        if flags & 3 or (isinstance(mode, str) and set(mode) & set("wax+")):
            _written.append(path)


def test_nothing_is_written_to_the_disk(serve):
    """Frameworks put large uploads into temporary files; Pillow's TIFF asks for one, too."""
    global _written
    sys.addaudithook(_note_writing)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1000, 3), dtype=np.uint8)
    large = [encode(noise), encode(noise, "TIFF", compression="tiff_lzw"), encode(noise, "BMP")]
    assert all(len(content) > 4_000_000 for content in large)
    client, _written = serve(upload_bytes=sum(map(len, large)) + 1000), []
    try:
        assert [image["error"] for image in post(client, *large).json()["images"]] == [None] * 3
        assert post(client, *large, encode(noise, "BMP")).status_code == 413
        assert _written == []
        with open("/dev/null", "w"):
            assert _written == ["/dev/null"]
    finally:
        _written = None


def test_what_the_service_says_of_itself(serve, tiny_run):
    client = serve()
    model = client.get("/model").json()
    assert model["name"] == "cnn_relu" and model["emotions"] == list(EMOTIONS)
    assert model["weights"] == tiny_run.name and str(tiny_run.parent) not in str(model)
    assert model["evaluation"] == {
        "metric": "accuracy",
        "value": 0.5,
        "split": "validation",
        "selected": True,
    }
    preprocess = {"side": 48, "image_size": 48, "channels": 1, "mean": 0.5, "std": 0.25}
    assert model["input"] == preprocess
    assert (
        model["licence"] == "for whoever trained them to say"
        and "do not use it to judge people" in model["intended_use"]
    )
    assert client.get("/docs").status_code == 200
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/predict", "/model", "/health", "/ready", "/metrics"}
    (kind,) = api["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert kind == "multipart/form-data"
    codes = set(api["paths"]["/predict"]["post"]["responses"])
    assert codes == {"200", "400", "408", "413", "415", "422", "429", "503"}
    # Made-up paths are one in the metrics.
    for path in ("/a", "/b"):
        assert client.get(path).status_code == 404
    assert 'fer_jax_requests_total{path="other",status="404"} 2.0\n' in client.get("/metrics").text


def test_the_bundled_weights_have_a_licence():
    from fer_jax.inference.service.schemas import describe_model

    model = describe_model(Predictor.load("cnn", "whole"))
    assert model.name == "cnn"
    assert model.weights == "cnn_fer2013.safetensors" and model.licence == "Apache-2.0"
    # As the model card has it.
    assert round(100 * model.evaluation.value, 2) == 68.74 and model.evaluation.selected
    assert round(model.temperature, 3) == 0.951 and model.parameters == 1_969_255


def test_a_real_detector(serve, shared_dir, tmp_path, monkeypatch):
    file = shared_dir / "assets" / "detectors" / "face_detection_yunet_2023mar.onnx"
    photo = shared_dir / "assets" / "photos" / "grace_hopper.png"
    if not (file.exists() and photo.exists()):
        pytest.skip("needs YuNet in ../shared/assets/detectors")
    (tmp_path / "detectors").mkdir()
    shutil.copy(file, tmp_path / "detectors")
    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path))
    from fer_jax.inference.detection.detectors import YuNet

    (image,) = post(serve(YuNet()), photo.read_bytes()).json()["images"]
    (face,) = image["faces"]
    # Where the face is was read off the picture with a ruler.
    seen = Box(185, 120, 165, 215)
    assert Box(**face["box"]).overlap(seen) > 0.7
