"""Boxes, faces and what they say."""

import json

import numpy as np
import pytest

from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.structures import Box, Detection, Face, Prediction


def face(probabilities, unsure_below=0.5):
    box = Box(1.04, 2, 3, 4)
    return Face(Detection(box, 0.9, box), EMOTIONS, np.array(probabilities), unsure_below)


def test_overlap_is_intersection_over_union():
    one = Box(0, 0, 4, 2)
    assert one.overlap(one) == 1
    assert one.overlap(Box(2, 0, 4, 2)) == pytest.approx(4 / 12)  # by hand
    assert one.overlap(Box(1, 0.5, 2, 1)) == pytest.approx(2 / 8)  # inside
    assert one.overlap(Box(4, 0, 4, 2)) == 0  # side by side
    assert one.overlap(Box(9, 9, 1, 1)) == 0
    assert Box(0, 0, 0, 0).overlap(Box(0, 0, 0, 0)) == 0


def test_a_face_says_what_is_likeliest_and_whether_it_is_sure():
    one = face([0.1, 0.02, 0.2, 0.5, 0.08, 0.05, 0.05])
    assert one.emotion == "happy" and one.confidence == 0.5 and not one.unsure
    assert one.top(3) == [("happy", 0.5), ("fear", 0.2), ("angry", 0.1)]
    assert face(one.probabilities, 0.51).unsure
    # Of equals the first, as argmax has it.
    assert face([0.25, 0.25, 0.25, 0.25, 0, 0, 0]).top(2) == [("angry", 0.25), ("disgust", 0.25)]


def test_a_prediction_is_json():
    prediction = Prediction("a.png", 10, 20, (face([0, 0, 0, 1, 0, 0, 0]),))
    found = json.loads(json.dumps(prediction.to_dict()))
    assert found["source"] == "a.png" and (found["width"], found["height"]) == (10, 20)
    assert found["faces"] == [
        {
            "box": {"left": 1.0, "top": 2, "width": 3, "height": 4},
            "detection_score": 0.9,
            "emotion": "happy",
            "confidence": 1.0,
            "unsure": False,
            "probabilities": {name: float(name == "happy") for name in EMOTIONS},
        }
    ]
