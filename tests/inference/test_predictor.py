"""Tests `Predictor`, from images to emotions."""

import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax import Predictor
from fer_jax.data.decoding import PictureError
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation.saliency import heatmaps
from fer_jax.inference.detection import assets
from fer_jax.inference.detection.detectors import Detector
from fer_jax.inference.structures import Box, Detection
from fer_jax.pretrained.registry import BUNDLED


class Corners(Detector):
    """A detector that returns n faces of 48 pixels in the upper left corner; n is the first pixel."""

    def detect(self, image, max_side=0):
        box = Box(0, 0, 48, 48)
        return [Detection(box, 0.5, box)] * int(image.flat[0])


def test_faces_get_the_probabilities_of_an_evaluation(tiny_predictor, faces, expected):
    predictions = tiny_predictor(faces)
    found = np.stack([one.faces[0].probabilities for one in predictions])
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    (face,) = predictions[0].faces
    assert face.emotions == EMOTIONS and face.emotion == EMOTIONS[expected[0].argmax()]
    assert face.box == Box(0, 0, 48, 48)


def test_every_form_of_an_image_gives_the_same(tiny_predictor, faces, expected, tmp_path):
    image, path = Image.fromarray(faces[0, ..., 0]), tmp_path / "face.png"
    image.save(path)
    forms = [faces[0], faces[0, ..., 0], np.repeat(faces[0], 3, 2), image, path.read_bytes(), path, str(path)]
    found = tiny_predictor(forms)
    assert [one.source for one in found] == [None] * 5 + [str(path)] * 2
    for one in [*found, *(tiny_predictor(form)[0] for form in forms)]:  # together and alone
        np.testing.assert_allclose(one.faces[0].probabilities, expected[0], rtol=2e-5)
        assert (one.width, one.height) == (48, 48) and len(one.faces) == 1
    assert tiny_predictor([]) == []


def test_a_detected_frame_holds_what_the_classifier_takes(tiny_predictor, faces):
    predictor = Predictor(tiny_predictor.classifier, Corners())
    image = np.pad(faces[0], ((0, 12), (0, 2), (0, 0)))
    image.flat[0] = 2
    frame = predictor.detect(image)
    assert frame.size == (50, 60) and len(frame.detections) == 2 and frame.source is None
    np.testing.assert_array_equal(frame.image, image[..., 0])
    np.testing.assert_array_equal(frame.crops, [image[:48, :48]] * 2)
    assert predictor.detect(np.zeros((5, 5), np.uint8)).crops.shape == (0, 48, 48, 1)
    assert [one.box for one in predictor.detect(image, detected=False).detections] == [Box(0, 0, 50, 60)]


def test_the_faces_of_all_images_stay_with_their_images(tiny_predictor, faces):
    predictor = Predictor(tiny_predictor.classifier, Corners())
    counts = [0, 2, 0, 1, 9, 0]
    images = faces[: len(counts)].copy()
    images[:, 0, 0, 0] = counts
    found = predictor(images)
    assert [len(one.faces) for one in found] == counts
    for one, alone in zip(found, predictor.classifier(images), strict=True):
        for face in one.faces:
            np.testing.assert_allclose(face.probabilities, alone, rtol=2e-5)
    # With detected=False, each image is one face.
    assert [len(one.faces) for one in predictor(images, detected=False)] == [1] * len(counts)


def test_an_image_of_any_size_is_a_face(tiny_predictor):
    sizes = [(1, 1), (1, 500), (8000, 3), (8000, 8000), (49, 47)]
    found = tiny_predictor([np.zeros(size, np.uint8) for size in sizes])
    assert [(one.height, one.width) for one in found] == sizes
    assert all(np.isfinite(one.faces[0].probabilities).all() for one in found)


def test_an_image_that_cannot_be_used_is_named(tiny_predictor, faces, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    for images, message in (
        ([faces[0], tmp_path / "text.png"], "text.png: cannot be decoded"),
        ([faces[0], b"hello"], "image 1: cannot be decoded"),
        (Image.new("RGB", (0, 5)), "image 0.* "),
        ([faces[0], faces[0] / -255], "image 1.*float64"),
        (None, "image 0.*NoneType"),
        (7, "image 0.*int"),
    ):
        with pytest.raises(PictureError, match=message):
            tiny_predictor(images)
    with pytest.raises(PictureError, match="snapshot: declares 48 x 48 pixels, above the limit of 100"):
        Image.fromarray(faces[0, ..., 0]).save(tmp_path / "a.png")
        tiny_predictor.detect((tmp_path / "a.png").read_bytes(), "snapshot", max_pixels=100)


def test_confidence_below_the_threshold_is_unsure(tiny_predictor, faces, expected):
    middle = float(np.median(expected.max(axis=1)))
    predictor = Predictor(tiny_predictor.classifier, tiny_predictor.detector, unsure_below=middle)
    found = [one.faces[0] for one in predictor(faces)]
    assert [face.unsure for face in found] == [face.confidence < middle for face in found]
    assert 10 < sum(face.unsure for face in found) < 18
    with pytest.raises(ValueError, match="unsure_below 50: expected a number from 0 to 1"):
        Predictor(tiny_predictor.classifier, tiny_predictor.detector, unsure_below=50)


def test_threads_may_share_a_predictor(tiny_predictor, faces, expected):
    with ThreadPoolExecutor(8) as pool:
        found = [one.faces[0].probabilities for (one,) in pool.map(tiny_predictor, faces[:8])]
    np.testing.assert_allclose(found, expected[:8], rtol=2e-5)


def test_explanations_are_grad_cam_of_the_most_likely_emotion(tiny_model, tiny_predictor, faces):
    _, explained = heatmaps.Explainer(tiny_model)(faces[:3], batch_size=3, progress=False)
    np.testing.assert_array_equal(tiny_predictor.classifier.explain(faces[:3]), explained)


def test_networks_of_the_package_need_no_download_and_no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no server listens
    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path / "none"))
    for name in BUNDLED:
        assert Predictor.load(name).classifier.emotions == EMOTIONS
    assert not (tmp_path / "none").exists()


def test_unknown_weights_are_refused_with_the_names_there_are():
    """The error occurs before a detector is opened."""
    names = ", ".join(BUNDLED)
    message = f"no weights resnet: expected .* or a bundled network: {names}"
    with pytest.raises(FileNotFoundError, match=message):
        Predictor.load("resnet")


def test_the_package_offers_the_predictor_and_nothing_that_does_not_exist():
    assert fer_jax.Predictor is Predictor
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        fer_jax.Trainer  # noqa: B018


def test_without_a_home_or_a_writable_cache_a_download_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("FER_JAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # where no folder can be created
    with pytest.raises(OSError, match="FER_JAX_CACHE"):
        assets.fetch_blazeface()

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", no_home)
    with pytest.raises(OSError, match="FER_JAX_CACHE"):
        assets.fetch_blazeface()


def test_real_photos(photos):
    predictor = Predictor.load("cnn_64", batch_sizes=(1,))
    names = ["grace_hopper.png", "face.jpg", "cat.png"]
    found = predictor([photos / name for name in names])
    assert [len(one.faces) for one in found] == [1, 4, 0]
    # Only the largest face of the second image smiles.
    emotions = [face.emotion for one in found for face in one.faces]
    assert emotions.index("happy") == 1 and emotions.count("happy") == 1
