"""The page in headless Chromium: the network's numbers, OpenCV's boxes, and what people see and can do."""

import csv
import functools
import http.server
import pathlib
import re
import shutil
import threading
from base64 import b64encode

import cv2
import numpy as np
import pytest
from helpers import ROOT, encode, needed, program
from PIL import Image

from fer_jax.data.sources import synthetic
from fer_jax.inference.detection import assets
from fer_jax.inference.export.program import Program
from fer_jax.inference.media.inputs import SAMPLE
from fer_jax.inference.predictor import Predictor
from fer_jax.pretrained.loaded_model import LoadedModel

playwright = needed("playwright.sync_api", "browser")
expect = playwright.expect

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
RUNTIME = ROOT / "examples" / "browser" / "node_modules" / "onnxruntime-web"
SHIPPED = ROOT / "fer_jax" / "pretrained" / "cnn_1m_64_fer2013.safetensors"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
SIDE = 640
TIMEOUT = 120_000  # milliseconds; only a failure takes them

build_web = program("examples/browser/build.py")


@pytest.fixture(scope="module")
def photos(shared_dir) -> pathlib.Path:
    return shared_dir / "assets" / "photos"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """The built folder."""
    if not CHROMIUM or not RUNTIME.is_dir():
        reason = "needs Chromium and the page's packages: apt install chromium; npm install --prefix"
        pytest.skip(f"{reason} examples/browser")
    out = tmp_path_factory.mktemp("site")
    assert build_web.main(["--checkpoint", str(SHIPPED), "--out", str(out)]) == 0
    return out


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def serve():
    """Starts a plain static server for a folder; gives its address."""
    servers = []

    def start(folder: pathlib.Path) -> str:
        handler = functools.partial(_Quiet, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def address(site, serve) -> str:
    return serve(site)


@pytest.fixture(scope="module")
def browser(site):
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def ready(browser, address):
    """The page on a desktop, its networks loaded."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    expect(page.locator("#status")).to_have_text(re.compile("^Ready"), timeout=TIMEOUT)
    return page


def _upload(page, *files: tuple[str, bytes]) -> None:
    """Chooses files and waits until the page has looked at the last of them."""
    payload = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    page.set_input_files("#files", payload)
    expect(page.locator("#status")).to_have_text(re.compile(f"^{re.escape(files[-1][0])}: "), timeout=TIMEOUT)


def _evaluate(page, body: str, image: np.ndarray):
    """Runs JavaScript with a picture as a canvas and what the page loads."""
    code = """async (source) => {
      const { load } = await import("./runtime.js");
      globalThis.loaded ??= await load();
      const { metadata, classifier, detector } = globalThis.loaded;
      const { detect } = await import("./detect.js");
      const { classify, crops } = await import("./classify.js");
      const image = new Image();
      image.src = source;
      await image.decode();
      const canvas = document.createElement("canvas");
      canvas.width = image.width;
      canvas.height = image.height;
      canvas.getContext("2d").drawImage(image, 0, 0);
      BODY
    }"""
    source = "data:image/png;base64," + b64encode(encode(image)).decode()
    return page.evaluate(code.replace("BODY", body), source)


WHOLE = "const seen = crops(canvas, null, metadata.model);"
CLASSIFIED = WHOLE + "return (await classify(classifier, metadata.model, seen))[0];"
FOUND = "return detect(detector, metadata.detector, canvas);"


def test_a_face_gets_the_probabilities_that_python_gives(ready):
    faces, _ = synthetic.generate(1, seed=3, split="test")
    program = Program(LoadedModel(SHIPPED))
    expected = program.run(faces)
    found = np.array([_evaluate(ready, CLASSIFIED, face[..., 0]) for face in faces])
    assert abs(found - expected).max() < 1e-5
    ready.check("#whole")
    _upload(ready, ("face.png", encode(faces[0])))
    ready.uncheck("#whole")
    name, share = program.trained.metadata["emotions"][expected[0].argmax()], 100 * expected[0].max()
    expect(ready.locator("#results .card:first-child .answer")).to_have_text(f"{name} {share:.0f} %")


@pytest.mark.parametrize(("name", "count"), [("face.jpg", 4), ("grace_hopper.png", 1), ("pets.jpg", 0)])
def test_faces_are_where_opencv_finds_them(name, count, ready, photos):
    image = np.asarray(Image.open(photos / name).convert("RGB"))
    height, width = image.shape[:2]  # both fit into the network's input as they are
    padded = np.zeros((SIDE, SIDE, 3), np.uint8)
    padded[:height, :width] = image[..., ::-1]
    _, expected = cv2.FaceDetectorYN.create(str(assets.YUNET), "", (SIDE, SIDE), 0.6, 0.3).detect(padded)
    found = _evaluate(ready, FOUND, image)
    assert len(found) == count
    if count:
        expected = expected[np.argsort(-expected[:, 2] * expected[:, 3])]
        boxes = [[one["box"][key] for key in ("left", "top", "width", "height")] for one in found]
        np.testing.assert_allclose(boxes, expected[:, :4], atol=0.5)
        np.testing.assert_allclose([one["score"] for one in found], expected[:, 14], atol=0.01)
        eyes = expected[:, 4:8].reshape(-1, 2, 2)
        rolls = np.arctan2(*(eyes[:, 1] - eyes[:, 0]).T[::-1])
        np.testing.assert_allclose([one["frame"]["roll"] for one in found], rolls, atol=0.05)


def test_a_small_picture_is_enlarged_for_the_detector(ready, photos):
    image = Image.open(photos / "grace_hopper.png").convert("RGB")
    (box,) = [one["box"] for one in _evaluate(ready, FOUND, np.asarray(image))]
    small = image.resize((128, 150), Image.Resampling.BOX)
    (found,) = [one["box"] for one in _evaluate(ready, FOUND, np.asarray(small))]
    (x, y, w, h), (u, v, k, m) = box.values(), (4 * value for value in found.values())
    shared = (min(x + w, u + k) - max(x, u)) * (min(y + h, v + m) - max(y, v))
    assert shared / (w * h + k * m - shared) > 0.7


@pytest.mark.parametrize("angle", [-25, 25])
def test_a_leaning_face_is_turned_upright(angle, ready, photos):
    image = Image.open(photos / "grace_hopper.png").convert("RGB")
    body = """
      const [{ frame }] = await detect(detector, metadata.detector, canvas);
      const [turned, left] = crops(canvas, [frame, { ...frame, roll: 0 }], metadata.model);
      return [frame.roll, Array.from(turned[0]), Array.from(left[0])];
    """
    _, upright, _ = _evaluate(ready, body, np.asarray(image))
    tilted = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)  # counterclockwise
    roll, turned, left = _evaluate(ready, body, np.asarray(tilted))
    assert np.degrees(roll) == pytest.approx(-angle, abs=6)
    close, far = (np.corrcoef(upright, face)[0, 1] for face in (turned, left))
    assert close > far + 0.15


def test_several_pictures_each_with_what_was_found(ready, photos):
    names = ("face.jpg", "grace_hopper.png", "pets.jpg")
    texts = [("notes.txt", b"no picture"), ("script<b>.png", b"<script>")]
    _upload(ready, *((name, (photos / name).read_bytes()) for name in names), *texts)
    cards = ready.locator("#results .card")
    by_name = {name: cards.filter(has_text=name).first for name in (*names, "notes.txt", "script<b>.png")}
    expect(by_name["face.jpg"].locator(".face")).to_have_count(4)
    unsure = by_name["face.jpg"].locator(".is-unsure .note").first
    expect(unsure).to_have_text(re.compile("^Unsure: below 50 %"))
    one = by_name["grace_hopper.png"]
    expect(one.locator(".face")).to_have_count(1)
    expect(one.locator(".answer")).to_have_text(re.compile(r"^neutral \d\d %$"))
    expect(one.locator(".bars").first.locator("li")).to_have_count(3)
    expect(one.locator("details .bars li").first).to_be_hidden()
    one.locator("summary").click()
    expect(one.locator("details .bars li")).to_have_count(7)
    expect(one.locator("details .bars li").last).to_be_visible()
    expect(by_name["pets.jpg"]).to_contain_text("No face found")
    for name, _ in texts:
        expect(by_name[name]).to_contain_text(f"{name} is not an image that this browser can read")


def test_an_example_its_downloads_and_clearing(browser, address):
    page = browser.new_page()
    page.goto(address)
    expect(page.locator("#status")).to_have_text(re.compile("^Ready"), timeout=TIMEOUT)
    expect(page.locator("#finished")).to_be_hidden()
    page.click("#example")
    expect(page.locator("#status")).to_have_text(re.compile("^example.jpg: 1 face: neutral"), timeout=TIMEOUT)
    (face,) = Predictor.load(batch_sizes=(1,))(SAMPLE)[0].faces
    with page.expect_download() as saved:
        page.click("#table")
    rows = list(csv.DictReader(saved.value.path().read_text().splitlines()))
    assert saved.value.suggested_filename == "faces.csv" and len(rows) == 1
    assert float(rows[0]["confidence"]) == pytest.approx(face.confidence, abs=0.01)
    with page.expect_download() as saved:
        page.click(".card .save")
    assert saved.value.suggested_filename == "example_annotated.png"
    assert Image.open(saved.value.path()).size == Image.open(SAMPLE).size
    page.click("#clear")
    expect(page.locator("#results .card")).to_have_count(0)
    expect(page.locator("#finished")).to_be_hidden()
    page.close()


def test_the_page_says_what_the_network_is_for_and_how_good(ready):
    about = ready.locator("#model")
    for text in (
        "70.3 % of validation of fer2013",
        "selected on validation",
        "do not use it to judge people",
    ):
        expect(about).to_contain_text(text)
    expect(ready.locator("footer a")).to_have_attribute("href", "#model")


def test_everything_can_be_reached_by_keyboard(browser, address):
    page = browser.new_page()
    page.goto(address)
    expect(page.locator("#status")).to_have_text(re.compile("^Ready"), timeout=TIMEOUT)
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["files", "webcam", "example", "whole"]
    page.keyboard.press("Space")
    expect(page.locator("#whole")).to_be_checked()
    page.close()


def test_the_webcam_starts_and_stops(ready):
    ready.click("#webcam")
    expect(ready.locator("#live canvas").first).to_be_visible(timeout=TIMEOUT)
    expect(ready.locator("#webcam")).to_have_text("Stop the webcam")
    ready.click("#webcam")
    expect(ready.locator("#live")).to_be_hidden()
    expect(ready.locator("#status")).to_have_text("The webcam is off.")


@pytest.mark.parametrize(
    ("error", "message"), [("NotAllowedError", "was denied"), ("NotFoundError", "No webcam was found")]
)
def test_no_webcam_is_explained(error, message, ready):
    ready.evaluate(
        """(name) => {
          const value = async () => { throw new DOMException("no", name); };
          Object.defineProperty(navigator.mediaDevices, "getUserMedia", { value, configurable: true });
        }""",
        error,
    )
    ready.click("#webcam")
    expect(ready.locator("#error")).to_contain_text(message)
    ready.evaluate("delete navigator.mediaDevices.getUserMedia")


def test_a_phone_in_the_dark_asks_nobody_else(browser, address, photos):
    asked = []
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.locator("#status")).to_have_text(re.compile("^Ready"), timeout=TIMEOUT)
    _upload(page, ("face.jpg", (photos / "face.jpg").read_bytes()))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    assert asked and all(url.startswith((address, "blob:", "data:")) for url in asked)
    page.close()


def test_a_missing_network_is_named(browser, site, serve, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(site, folder, ignore=shutil.ignore_patterns("model.onnx"))
    page = browser.new_page()
    page.goto(serve(folder))
    expect(page.locator("#error")).to_contain_text("model.onnx is missing next to this page", timeout=TIMEOUT)
    expect(page.locator("#files")).to_be_disabled()
    (folder / "model.onnx").write_bytes(b"no network")
    page.reload()
    expect(page.locator("#error")).to_contain_text("model.onnx cannot be run by this page", timeout=TIMEOUT)
    page.close()


def test_a_double_click_on_the_file_is_explained(browser, site):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    expect(page.locator("#error")).to_contain_text("python -m http.server")
    page.close()


def test_without_the_runtime_the_script_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_web, "SOURCE", tmp_path / "browser")
    assert build_web.main(["--checkpoint", str(SHIPPED), "--out", str(tmp_path / "out")]) == 2
    assert "npm install --prefix" in capsys.readouterr().err
