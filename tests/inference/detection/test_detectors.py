"""Tests the face detectors on real photographs and on images without faces."""

import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from fer_jax.data import decoding
from fer_jax.inference.detection import assets, detectors
from fer_jax.inference.media import inputs
from fer_jax.inference.structures import Box, Detection
from fer_jax.pretrained import download

FOLDER = ROOT / "fer_jax" / "inference"
# Eyes, nose, and mouth of each face, measured by hand: (left, top, right, bottom) in pixels.
GRACE_HOPPER = (215, 170, 320, 285)
FOUR = [(275, 85, 330, 150), (155, 115, 210, 180), (448, 135, 485, 172), (12, 118, 36, 152)]


@pytest.fixture(scope="module")
def cache(shared_dir):
    """Returns the cache folder with the detectors' files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(download.CACHE_VARIABLE, str(shared_dir / "assets"))
        yield shared_dir / "assets"


def need_mediapipe():
    reason = "needs mediapipe: pip install --no-deps mediapipe; on Debian apt install libegl1 libgles2"
    pytest.importorskip("mediapipe", reason=reason, exc_type=ImportError)


@pytest.fixture(scope="module", params=["yunet", "mediapipe"])
def name(request, cache):
    if request.param == "mediapipe":
        need_mediapipe()
    return request.param


@pytest.fixture(scope="module")
def detector(name):
    return detectors.create(name)


@pytest.fixture(scope="module")
def yunet():
    return detectors.create("yunet")


@pytest.fixture(scope="module")
def hopper(photos):
    return decoding.read(photos / "grace_hopper.png")


@pytest.fixture(scope="module")
def group(photos):
    return decoding.read(photos / "face.jpg")


def assert_covers(face, features):
    """Checks that the box and the frame contain the rectangle of the features."""
    for box in (face.box, face.frame):
        (left, top, right, bottom), (x0, y0, x1, y1) = box.edges, features
        assert left <= x0 and top <= y0 and x1 <= right and y1 <= bottom


def test_one_face(detector, hopper):
    (face,) = detector.detect(hopper)
    assert_covers(face, GRACE_HOPPER)
    assert face.score > 0.9 and face.rotation == 0 and face.roll == 0


def test_several_faces_the_largest_first(name, detector, group):
    found = detector.detect(group)
    # MediaPipe's model is for faces near the camera and misses the two small ones.
    assert len(found) == {"yunet": 4, "mediapipe": 2}[name]
    areas = [one.box.area for one in found]
    assert areas == sorted(areas, reverse=True)
    for one, features in zip(sorted(found, key=lambda one: -one.box.width), FOUR, strict=False):
        assert_covers(one, features)


def test_no_face(detector, photos):
    for photo in ("cat.png", "pets.jpg", "parrot.jpg", "hot_dog.jpg"):
        assert detector.detect(decoding.read(photos / photo)) == [], photo
    for shape in ((1, 1), (1, 1, 3), (1, 3000), (8000, 40)):
        assert detector.detect(np.full(shape, 128, np.uint8)) == [], shape


def test_yunet_finds_what_opencv_finds_with_it(yunet, group):
    path = str(assets.YUNET)
    reference = cv2.FaceDetectorYN.create(path, "", group.shape[1::-1], 0.6)
    expected = reference.detect(np.ascontiguousarray(group[..., ::-1]))[1]
    found = yunet.detect(group)
    boxes = [one.box for one in found]
    np.testing.assert_allclose(sorted(boxes), sorted(expected[:, :4].tolist()), rtol=1e-6)
    scores = sorted(one.score for one in found)
    np.testing.assert_allclose(scores, sorted(expected[:, 14].tolist()), rtol=1e-6)


def test_frames_are_squares_about_the_boxes(yunet, hopper):
    (one,), (wide,) = yunet.detect(hopper), detectors.create("yunet", margin=1.5).detect(hopper)
    assert one.box == wide.box
    assert one.frame.width == one.frame.height == pytest.approx(0.97 * max(one.box.width, one.box.height))
    assert wide.frame.width == pytest.approx(1.5 * one.frame.width)
    for frame in (one.frame, wide.frame):
        assert frame.center == pytest.approx(one.box.center)


def test_large_and_small_images_are_searched_at_a_suitable_size(yunet, hopper, group):
    image, (usual,) = Image.fromarray(hopper), yunet.detect(hopper)
    for factor in (8, 0.08):  # 4096 x 4800, 41 x 48
        (found,) = yunet.detect(np.asarray(image.resize([round(n * factor) for n in image.size])))
        np.testing.assert_allclose(np.array(found.box) / factor, usual.box, rtol=0.15)
    assert len(yunet.detect(group, max_side=60)) < 4  # the large faces only


def test_a_face_cut_by_the_border_has_a_frame_beyond_it(yunet, hopper):
    (face,) = yunet.detect(hopper[:, 270:])  # half of the face
    assert face.frame.left < 0


@pytest.mark.parametrize("rotation", (0, 90, 180, 270))
def test_faces_in_an_image_on_its_side(rotation, detector, hopper):
    lying = np.rot90(hopper, -rotation // 90)
    (face,) = detectors.RotatedSearch(detector).detect(lying)
    assert face.rotation == rotation and abs(face.roll) < 10
    # The features' rectangle, rotated with the image.
    mask = np.zeros(hopper.shape[:2], bool)
    x0, y0, x1, y1 = GRACE_HOPPER
    mask[y0:y1, x0:x1] = True
    rows, columns = np.nonzero(np.rot90(mask, -rotation // 90))
    assert_covers(face, (columns.min(), rows.min(), columns.max(), rows.max()))


def test_a_leaning_face_has_a_roll(yunet, hopper):
    (face,) = yunet.detect(np.asarray(Image.fromarray(hopper).rotate(-25, expand=True)))
    assert 15 < face.roll < 35  # clockwise
    # Faces with a roll as in training are not rotated.
    slightly = np.asarray(Image.fromarray(hopper).rotate(-8, expand=True))
    (face,), (measured,) = yunet.detect(slightly), detectors.create("yunet", min_roll=0).detect(slightly)
    assert face.roll == 0 and 3 < measured.roll < 15 and face.box == measured.box


def test_the_full_image():
    image = np.zeros((30, 20, 3), np.uint8)
    box = Box(0, 0, 20, 30)
    assert detectors.create("whole").detect(image) == [Detection(box, 1.0, box)]
    assert detectors.create("whole", any_rotation=True).detect(image) == [Detection(box, 1.0, box)]


def test_threads_may_share_a_detector(detector, hopper, group, photos):
    images = [hopper, group, decoding.read(photos / "cat.png")]
    expected = [detector.detect(image) for image in images]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(detector.detect, images * 4)) == expected * 4


def test_a_detector_that_outlives_its_libraries_is_silent(cache, monkeypatch):
    need_mediapipe()
    detector = detectors.MediaPipe()

    def fail():
        raise RuntimeError("cannot schedule new futures after shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(detector._model, "close", fail)
        detector._model.__del__()  # as the interpreter does at exit
    detector._model.close()
    assert detector._model._handle is None


@pytest.mark.parametrize("margin", [0, 11])
def test_a_margin_out_of_range_is_refused(margin):
    with pytest.raises(ValueError, match=f"margin {margin}: expected"):
        detectors.create("yunet", margin=margin)


def test_an_unknown_detector_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="unknown face detector 'haar'; there are: mediapipe, whole, yunet"):
        detectors.create("haar")


def test_the_files_of_the_package_are_those_that_its_notice_names():
    rows = re.findall(r"`([^`]+\.\w+)` .* SHA-256 `(\w{64})`", (FOLDER / "NOTICE.md").read_text())
    assert {FOLDER / name for name, _ in rows} == {assets.YUNET, inputs.SAMPLE}
    assert all(download.digest(FOLDER / name) == digits for name, digits in rows)


def test_a_missing_file_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no server listens
    with pytest.raises(download.DownloadError, match="copy it to .* or use the detector yunet"):
        assets.fetch_blazeface()


def test_another_file_under_the_models_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "detectors").mkdir()
    (tmp_path / "detectors" / "face_detection_short_range.tflite").write_bytes(b"another")
    with pytest.raises(download.WrongFileError, match="is not the file from"):
        assets.fetch_blazeface()
