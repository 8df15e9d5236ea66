"""From pictures to emotions in one object."""

import threading

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax import Predictor
from fer_jax.data.dataset import read
from fer_jax.data.decoding import PictureError
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation.saliency import heatmaps
from fer_jax.inference.detection.detectors import Detector
from fer_jax.inference.structures import Box, Detection
from fer_jax.pretrained.registry import BUNDLED


class Corners(Detector):
    """As many faces as the first pixel says, in the picture's upper left corner, each of 48 pixels."""

    def detect(self, image, max_side=0):
        box = Box(0, 0, 48, 48)
        return [Detection(box, 0.5, box)] * int(image.flat[0])


@pytest.fixture(scope="module")
def faces(tiny_data):
    return read.load(tiny_data, "validation").images


def test_faces_get_the_probabilities_of_an_evaluation(tiny_predictor, faces):
    predictions = tiny_predictor(faces)
    assert len(predictions) == len(faces)
    found = np.stack([one.faces[0].probabilities for one in predictions])
    expected = tiny_predictor.classifier.trained.predict(faces, progress=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    (face,) = predictions[0].faces
    assert face.emotions == EMOTIONS and face.emotion == EMOTIONS[expected[0].argmax()]
    assert face.box == Box(0, 0, 48, 48)


def test_every_form_of_a_picture_gives_the_same(tiny_predictor, faces, tmp_path):
    image = Image.fromarray(faces[0, ..., 0])
    image.save(tmp_path / "face.png")
    forms = [faces[0], faces[0, ..., 0], np.repeat(faces[0], 3, 2), image, tmp_path / "face.png"]
    forms.append(str(tmp_path / "face.png"))
    found = tiny_predictor(forms)
    for one in found:
        np.testing.assert_allclose(one.faces[0].probabilities, found[0].faces[0].probabilities, rtol=1e-6)
    assert [one.source for one in found[3:]] == [None] + [str(tmp_path / "face.png")] * 2
    for form in forms:  # alone, too
        (one,) = tiny_predictor(form)
        assert (one.width, one.height) == (48, 48) and len(one.faces) == 1
    assert tiny_predictor([]) == []


def test_the_faces_of_all_pictures_keep_to_their_pictures(tiny_predictor, faces):
    predictor = Predictor(tiny_predictor.classifier, Corners())
    counts = [0, 2, 0, 1, 9, 0]
    images = [faces[i].copy() for i in range(len(counts))]
    for image, count in zip(images, counts, strict=True):
        image.flat[0] = count
    found = predictor(images)
    assert [len(one.faces) for one in found] == counts
    alone = [predictor.classifier(image[None])[0] for image in images]
    for one, expected in zip(found, alone, strict=True):
        for face in one.faces:
            np.testing.assert_allclose(face.probabilities, expected, rtol=1e-5)
    # And each as one face, whatever the detector.
    assert [len(one.faces) for one in predictor(images, detected=False)] == [1] * len(counts)


def test_a_picture_of_any_size_is_a_face_or_none(tiny_predictor):
    sizes = [(1, 1), (1, 500), (8000, 3), (8000, 8000), (49, 47)]
    found = tiny_predictor([np.zeros(size, np.uint8) for size in sizes])
    assert [(one.height, one.width) for one in found] == sizes
    assert all(np.isfinite(one.faces[0].probabilities).all() for one in found)


def test_a_picture_that_cannot_be_used_is_named(tiny_predictor, faces, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(PictureError, match="text.png: cannot be decoded"):
        tiny_predictor([faces[0], tmp_path / "text.png"])
    with pytest.raises(PictureError, match="picture 0: 0 x 5 pixels"):
        tiny_predictor(Image.new("RGB", (0, 5)))
    with pytest.raises(PictureError, match="picture 1: float64 from"):
        tiny_predictor([faces[0], faces[0] * 1.0])


def test_confidence_below_the_threshold_is_unsure(tiny_run, faces):
    confidence = [one.faces[0].confidence for one in Predictor.load(tiny_run, "whole")(faces)]
    middle = float(np.median(confidence))
    predictor = Predictor.load(tiny_run, "whole", unsure_below=middle)
    assert [one.faces[0].unsure for one in predictor(faces)] == [value < middle for value in confidence]
    with pytest.raises(ValueError, match="unsure_below 50: expected a confidence, 0 to 1"):
        Predictor.load(tiny_run, "whole", unsure_below=50)


def test_threads_may_share_a_predictor(tiny_predictor, faces):
    expected = [one.faces[0].probabilities for one in tiny_predictor(faces[:8])]
    found = [None] * 8

    def work(i):
        found[i] = tiny_predictor(faces[i])[0].faces[0].probabilities

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_explanations_are_grad_cam_of_the_likeliest_emotion(tiny_predictor, faces):
    trained = tiny_predictor.classifier.trained
    _, expected = heatmaps.explain(
        trained.model, trained.variables, faces[:3], trained.normalization, progress=False
    )
    found = tiny_predictor.explain(faces[:3])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_network_needs_no_download(name, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens
    assert Predictor.load(name, "whole").classifier.emotions == EMOTIONS


def test_unknown_weights_are_refused_with_the_names_there_are(monkeypatch, tmp_path):
    """Before a detector is fetched."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path))
    names = ", ".join(BUNDLED)
    with pytest.raises(FileNotFoundError, match=f"no weights resnet: expected .* or one of: {names}"):
        Predictor.load("resnet")


def test_the_package_offers_the_predictor_and_nothing_that_is_not_there():
    assert fer_jax.Predictor is Predictor
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        fer_jax.Trainer  # noqa: B018


def test_real_photos(detector_cache, photos):
    predictor = Predictor.load("cnn", batch_sizes=(1,))
    names = ["grace_hopper.png", "face.jpg", "cat.png"]
    found = predictor([photos / name for name in names])
    assert [len(one.faces) for one in found] == [1, 4, 0]
    # The largest face of the second smiles; nobody else does.
    emotions = [face.emotion for one in found for face in one.faces]
    assert emotions.index("happy") == 1 and emotions.count("happy") == 1
