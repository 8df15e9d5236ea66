"""Tests the app with a real server and browser, and a camera that shows a photograph.

pytest -m browser
"""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import requests
from clips import encode_clip
from helpers import ROOT, environment, needed
from PIL import Image
from test_uploads import encoded, png_that_declares

playwright = needed("playwright.sync_api", "browser")
needed("streamlit", "app")
pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream "
    "--use-fake-ui-for-media-stream"
)
WAIT = 60_000  # milliseconds; compiling is slow on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Returns the app's address, and the folders that its process can write to."""
    folder = tmp_path_factory.mktemp("server")
    home, scratch = folder / "home", folder / "tmp"
    home.mkdir(), scratch.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(ROOT / "fer_jax" / "inference" / "app" / "app.py")]
        + ["--server.headless=true", f"--server.port={port}"],
        cwd=scratch,
        env=environment(HOME=str(home), TMPDIR=str(scratch), FER_JAX_CACHE=str(folder / "cache")),
    )
    address = f"http://localhost:{port}"
    try:
        _await(address, process)
        yield address, (home, scratch)
        assert process.poll() is None, "the server ended while it was tested"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _await(address, process):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(f"{address}/_stcore/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    pytest.fail("the server does not start")


@pytest.fixture(scope="module")
def browser(photos, tmp_path_factory):
    """Returns a browser whose camera shows a photograph of a face."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    photo = Image.open(photos / "grace_hopper.png").convert("RGB").crop((0, 40, 512, 424)).resize((640, 480))
    with av.open(str(camera), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(photo), format="rgb24")))
        container.mux(stream.encode(None))
    with playwright.sync_playwright() as starter:
        flags = [*FLAGS.split(), f"--use-file-for-fake-video-capture={camera}"]
        opened = starter.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def visit(server, browser):
    """Opens the app in a new session; checks at the end that no other server was contacted."""
    contexts, strangers = [], []

    def note(request):
        if not request.url.startswith((server[0], "data:", "blob:")):
            strangers.append(request.url)

    def start(width=1280, scheme="light"):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, permissions=["camera"])
        contexts.append(context)
        page = context.new_page()
        page.on("request", note)
        page.set_default_timeout(WAIT)
        page.goto(server[0])
        page.get_by_text("About this model").wait_for()
        return page

    yield start
    for context in contexts:
        context.close()
    assert not strangers


def upload(page, files):
    page.locator("input[type=file][multiple]").set_input_files(files)


def upload_video(page, file):
    page.locator("input[type=file]:not([multiple])").set_input_files(file)


def as_file(name, content, kind="image/jpeg"):
    return {"name": name, "mimeType": kind, "buffer": content}


def choose(page, name):
    page.get_by_role("radio", name=name).click()


def saved_table(page):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download the table").click()
    with open(waiting.value.path(), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_several_files(visit, photos, width, scheme):
    page = visit(width, scheme)
    upload(page, [str(photos / name) for name in ("face.jpg", "pets.jpg")])
    page.get_by_text("4 faces found").wait_for()
    page.get_by_text("No face found.").wait_for()
    page.get_by_role("img", name="face.jpg: 4 faces found").wait_for()
    table = saved_table(page)
    assert [row["source"] for row in table] == ["face.jpg"] * 4 + ["pets.jpg"]
    assert [row["status"] for row in table] == ["face"] * 4 + ["no_face"]
    shown = page.locator("body").inner_text()
    for row in table[:4]:
        assert f"{100 * float(row['confidence']):.1f} %" in shown
    # The page does not scroll sideways.
    wide, seen = page.get_by_test_id("stMain").evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert wide <= seen <= width
    light = page.get_by_test_id("stApp").evaluate("one => getComputedStyle(one).backgroundColor")
    assert (sum(map(int, light[4:-1].split(","))) > 384) == (scheme == "light")


def test_a_snapshot_with_the_camera(visit):
    page = visit(390)
    choose(page, "Camera")
    film = page.locator("[data-testid=stCameraInput] video")
    film.wait_for()
    # A snapshot before the camera has started would be black.
    page.wait_for_function("one => one.readyState > 2 && one.currentTime > 0.5", arg=film.element_handle())
    page.get_by_role("button", name="Take Photo").click()
    page.get_by_text("1 face found").wait_for()
    (row,) = saved_table(page)
    assert row["source"] == "Snapshot" and float(row["width"]) > 100


def test_a_video(visit, photos, tmp_path):
    photo = np.asarray(Image.open(photos / "grace_hopper.png").convert("RGB").resize((256, 300)))
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 256, 300, "yuv420p"
        for _ in range(16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(photo, format="rgb24")))
        container.mux(stream.encode(None))
    page = visit()
    choose(page, "Video")
    upload_video(page, str(tmp_path / "v.mp4"))
    page.get_by_text("Average:").wait_for()
    assert page.get_by_role("combobox", name="Face (track ID)").input_value() == "1, in 8 of 8 frames"
    assert [row["seconds"] for row in saved_table(page)] == [str(0.25 * i) for i in range(8)]
    page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").first.wait_for()


def test_two_sessions_at_once_see_only_their_own(visit, photos):
    one, other = visit(), visit()
    upload(one, str(photos / "grace_hopper.png"))
    upload(other, str(photos / "face.jpg"))
    other.get_by_text("4 faces found").wait_for()
    one.get_by_text("1 face found").wait_for()
    assert {row["source"] for row in saved_table(one)} == {"grace_hopper.png"}
    assert {row["source"] for row in saved_table(other)} == {"face.jpg"}
    assert "face.jpg" not in one.content() and "grace_hopper" not in other.content()
    third = visit()
    assert "face.jpg" not in third.content() and "grace_hopper" not in third.content()


def test_hostile_files_are_messages_and_the_server_lives_on(visit, server, photos):
    evil = "![x](http://evil.example/x.png)<img src=http://evil.example>.jpg".replace("/", ":")
    polyglot = encoded("JPEG") + b"<html><script>document.title='taken'</script></html>PK\x03\x04"
    files = [
        as_file("page.jpg", b"<html><script>document.title='taken'</script></html>"),
        as_file("bomb.png", png_that_declares(1_000_000, 1_000_000), "image/png"),
        as_file("large.png", png_that_declares(9_000, 9_000), "image/png"),
        as_file("cut.jpg", (photos / "face.jpg").read_bytes()[:5000]),
        as_file("zip.png", b"PK\x03\x04" + bytes(5000), "image/png"),
        as_file("polyglot.jpg", polyglot),
        as_file(evil, b"GIF89a"),
        as_file("good.jpg", (photos / "face.jpg").read_bytes()),
    ]
    page = visit()
    upload(page, files)
    page.get_by_text("4 faces found").wait_for()
    said = page.get_by_test_id("stAlertContentError")
    assert said.count() == 6, said.all_inner_texts()
    status = {row["source"]: row["status"] for row in saved_table(page)}
    assert list(status.values()) == ["error"] * 5 + ["no_face", "error", "face"]
    assert page.title() == "Facial emotion recognition"
    choose(page, "Video")
    upload_video(page, as_file("list.mp4", b"#EXTM3U\nfile:///etc/passwd\n", "video/mp4"))
    page.get_by_text("is not a supported video").wait_for()
    upload_video(page, as_file("cut.mp4", encode_clip()[:300], "video/mp4"))
    page.get_by_text("has no video").wait_for()
    # Other sessions are not affected.
    again = visit()
    upload(again, str(photos / "grace_hopper.png"))
    again.get_by_text("1 face found").wait_for()


def test_nothing_is_written(visit, server, photos):
    page = visit()
    upload(page, str(photos / "face.jpg"))
    page.get_by_text("4 faces found").wait_for()
    page.get_by_text("Show where the network looked").click()
    page.get_by_text("but not why").wait_for()
    page.get_by_text("4: ").first.wait_for()
    written = [
        os.path.join(parent, name)
        for folder in server[1]
        for parent, _, names in os.walk(folder)
        for name in names
        if "matplotlib" not in parent  # its list of fonts
    ]
    assert not written


def test_the_live_picture(visit):
    needed("streamlit_webrtc", "webrtc")
    page = visit()
    choose(page, "Live")
    page.get_by_role("button", name="Take a snapshot instead").wait_for()
    live = page.frame_locator("iframe[title*=webrtc]")
    live.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Take a snapshot instead").wait_for(state="detached")
    video = live.locator("video")
    video.wait_for()
    handle = video.element_handle()
    page.frames[-1].wait_for_function("one => one.videoWidth > 0 && one.currentTime > 0", arg=handle)
    live.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Take a snapshot instead").click()
    page.get_by_role("button", name="Take Photo").wait_for()
