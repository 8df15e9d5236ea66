"""Tests boxes and faces."""

import json

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference import drawing
from fer_jax.inference.predictor import Prediction
from fer_jax.inference.structures import Box, Detection, Face


def face(probabilities, unsure_below=0.5):
    box = Box(1.04, 2, 3, 4)
    return Face(Detection(box, 0.9, box), EMOTIONS, np.array(probabilities), unsure_below)


@pytest.mark.parametrize(
    ("other", "overlap"),
    [
        (Box(0, 0, 4, 2), 1),
        (Box(2, 0, 4, 2), 4 / 12),  # by hand
        (Box(1, 0.5, 2, 1), 2 / 8),  # inside
        (Box(4, 0, 4, 2), 0),  # side by side
        (Box(9, 9, 1, 1), 0),
    ],
)
def test_overlap_is_intersection_over_union(other, overlap):
    assert Box(0, 0, 4, 2).overlap(other) == other.overlap(Box(0, 0, 4, 2)) == pytest.approx(overlap)
    assert Box(0, 0, 0, 0).overlap(Box(0, 0, 0, 0)) == 0


def test_a_face_says_what_is_most_likely_and_whether_it_is_sure():
    one = face([0.1, 0.02, 0.2, 0.5, 0.08, 0.05, 0.05])
    assert one.emotion == "happy" and one.confidence == 0.5 and not one.unsure
    assert one.top(3) == [("happy", 0.5), ("fear", 0.2), ("angry", 0.1)]
    assert face(one.probabilities, 0.51).unsure
    # The first of equal probabilities, as in argmax.
    assert face([0.25, 0.25, 0.25, 0.25, 0, 0, 0]).top(2) == [("angry", 0.25), ("disgust", 0.25)]


def test_a_prediction_is_json():
    prediction = Prediction("a.png", 10, 20, (face([0, 0, 0, 1, 0, 0, 0]),))
    expected = {
        "box": {"left": 1.0, "top": 2, "width": 3, "height": 4},
        "detection_score": 0.9,
        "emotion": "happy",
        "confidence": 1.0,
        "unsure": False,
        "probabilities": {name: float(name == "happy") for name in EMOTIONS},
    }
    found = json.loads(json.dumps(prediction.to_dict()))
    assert found == {"source": "a.png", "width": 10, "height": 20, "faces": [expected]}


def test_a_prediction_is_drawn_on_its_image_or_on_the_one_given(tmp_path):
    image = np.full((60, 80, 3), 77, np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    faces = (face([0, 0, 0, 1, 0, 0, 0]),)
    from_file = Prediction(str(tmp_path / "a.png"), 80, 60, faces)
    for drawn in (from_file.draw(), from_file.draw(image)):
        np.testing.assert_array_equal(np.asarray(drawn), drawing.draw(image, faces))
    with pytest.raises(ValueError, match="pass it to draw"):
        Prediction(None, 80, 60, faces).draw()
    with pytest.raises(ValueError, match="has 80 x 60 pixels, but the predicted one has 60 x 80"):
        Prediction(None, 60, 80, faces).draw(image)
