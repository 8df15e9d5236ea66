"""Tests the positions and colors of boxes and labels."""

import numpy as np
import pytest

from fer_jax.data.emotions import CONTEMPT, EMOTIONS
from fer_jax.inference import drawing
from fer_jax.inference.structures import Box, Detection, Face


def face(box, emotion="happy", confidence=0.9):
    probs = np.full(7, (1 - confidence) / 6)
    probs[EMOTIONS.index(emotion)] = confidence
    return Face(Detection(Box(*box), 1.0, Box(*box)), EMOTIONS, probs, 0.5)


def rgb(color):
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def count(image, color):
    return int((image == rgb(color)).all(axis=-1).sum())


def gray(height=300, width=400):
    return np.full((height, width), 77, np.uint8)


def test_an_image_without_faces_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(drawing.draw(image, []), image)
    assert drawing.draw(gray(), []).shape == (300, 400, 3)


def test_the_box_lies_on_the_face_in_the_color_of_its_emotion():
    image = gray()
    before = image.copy()
    drawn = drawing.draw(image, [face((100, 120, 80, 60), "sad")])
    np.testing.assert_array_equal(image, before)
    assert drawn.dtype == np.uint8
    changed = (drawn != 77).any(axis=-1)
    # Edges at 100 to 179 and 120 to 179, drawn inward; the face itself is not covered.
    assert changed[150, 100] and changed[150, 179] and changed[179, 140]
    assert not changed[150, 99] and not changed[150, 180] and not changed[180:].any()
    assert not changed[130:170, 110:170].any()
    assert tuple(drawn[150, 101]) == rgb(drawing.COLORS["sad"])
    assert changed[:120].any(), "no label above the box"


def test_an_unsure_face_has_dashes_and_no_emotions_color():
    drawn = drawing.draw(gray(), [face((100, 120, 140, 140), "sad", 0.3)])
    assert count(drawn, drawing.COLORS["sad"]) == 0
    edge = (drawn[135:245, 102] == 255).all(axis=-1)
    assert 0.25 < edge.mean() < 0.75 and np.count_nonzero(np.diff(edge.astype(int))) >= 4


@pytest.mark.parametrize(
    "box", [(-30, -40, 100, 100), (350, 250, 90, 90), (0, 0, 400, 300), (150, -5, 60, 310), (398, 10, 50, 50)]
)
def test_labels_stay_in_the_image_and_whole(box):
    drawn = drawing.draw(gray(), [face(box, "angry", 0.3)])
    alone = drawing.draw(gray(), [face((150, 150, box[2], box[3]), "angry", 0.3)])
    dark = rgb("#101418")
    letters = [(image == dark).all(axis=-1).sum() for image in (drawn, alone)]
    assert min(letters) > 100
    rows, columns = np.nonzero((drawn == 255).all(axis=-1))
    # The label is the largest white area, as high as the letters with padding.
    assert np.bincount(rows).max() > 60 and len(np.unique(columns)) > 60


def test_labels_of_neighbours_do_not_hide_each_other():
    left, right = face((100, 100, 60, 60), "happy"), face((130, 100, 60, 60), "fear")
    both = drawing.draw(gray(), [left, right])
    for one, number in ((left, 1), (right, 2)):
        color = drawing.COLORS[one.emotion]
        alone = drawing.draw(gray(), [one], [number])
        assert count(both[:100], color) + count(both[160:], color) > 0.95 * max(count(alone[:100], color), 1)


def test_numbers_are_shown_where_there_are_several_or_they_are_given():
    one = face((100, 120, 80, 60))
    plain, numbered = drawing.draw(gray(), [one]), drawing.draw(gray(), [one], [7])
    assert count(numbered[:118], drawing.COLORS["happy"]) > 1.1 * count(plain[:118], drawing.COLORS["happy"])


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (9, 7), (48, 48), (3000, 2000)])
def test_any_size_can_be_drawn_on(shape):
    faces = [face((0, 0, shape[1], shape[0])), face((-5, -5, 2, 2), "fear", 0.2)]
    assert drawing.draw(gray(*shape), faces).shape == (*shape, 3)


def test_text_stands_out_from_every_color():
    """The contrast is at least 4.5 to 1, as WCAG 2.1 requires for small text."""

    def luminance(color):
        parts = [part / 255 for part in rgb(color)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert set(drawing.COLORS) == {*EMOTIONS, CONTEMPT}
    for color in (*drawing.COLORS.values(), drawing.UNSURE_COLOR):
        lighter, darker = sorted((luminance(color), luminance(drawing._ink(color))), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, color
