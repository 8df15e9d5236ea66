"""Tests emotions over time, from frames with known emotions and times."""

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.emotions import EMOTIONS
from fer_jax.inference.output.timeline import Timeline, longest
from fer_jax.inference.structures import Box, DetectedFrame, Detection, Face, Track

BOX = Box(0, 0, 9, 9)


def add(timeline, seconds, tracks, source="v.mp4"):
    """Adds a frame with smoothed predictions {track ID: (emotion, probability)}."""
    faces, found = [], []
    for number, (emotion, probability) in tracks.items():
        probabilities = np.full(7, (1 - probability) / 6)
        probabilities[EMOTIONS.index(emotion)] = probability
        # The frame's unsmoothed prediction differs and is not used.
        faces.append(Face(Detection(BOX, 1.0, BOX), EMOTIONS, np.eye(7)[0], 0.5))
        found.append(Track(number, BOX, seconds, probabilities))
    frame = DetectedFrame(source=source, frame=0, seconds=seconds, ends=False)
    timeline.add(frame, faces, found)


def spans(timeline):
    return [(one.track, one.emotion, one.unsure, one.start, one.end) for one in timeline.spans]


def test_a_span_lasts_while_the_emotion_and_its_certainty_stay():
    timeline = Timeline()
    for seconds, answer in enumerate([("happy", 0.9), ("happy", 0.6), ("happy", 0.4), ("sad", 0.4)]):
        add(timeline, 0.5 * seconds, {1: answer})
    # The last frame lasts as long as the one before it.
    expected = [(1, "happy", False, 0, 1), (1, "happy", True, 1, 1.5), (1, "sad", True, 1.5, 2)]
    assert spans(timeline) == expected


def test_a_face_out_of_sight_leaves_a_gap_and_tracks_do_not_disturb_each_other():
    timeline = Timeline()
    for seconds, numbers in [(0, (1, 2)), (0.5, (1,)), (1, (1, 2)), (3, (1, 2))]:
        add(timeline, seconds, dict.fromkeys(numbers, ("happy", 0.9)))
    assert spans(timeline) == [
        (1, "happy", False, 0, 1.5),
        (2, "happy", False, 0, 2),
        (1, "happy", False, 3, 3.5),  # each lasts as long as the one before
        (2, "happy", False, 3, 4),
    ]


def test_of_many_tracks_those_seen_longest_are_drawn_in_their_order():
    timeline = Timeline()
    for seconds in range(3):
        tracks = {number: ("sad", 0.9) for number in range(1, 6) if number % 2 or seconds == 0}
        add(timeline, seconds, tracks)
    add(timeline, 0, {1: ("fear", 0.9)}, "other.mp4")
    assert longest(timeline.spans, 3) == [("v.mp4", 1), ("v.mp4", 3), ("v.mp4", 5)]
    assert len(longest(timeline.spans)) == 6


@pytest.mark.drawn
def test_the_figure_shows_each_emotion_in_its_color(tmp_path):
    timeline, path = Timeline(), tmp_path / "a.png"
    for seconds in range(4):
        add(timeline, seconds, {1: ("happy" if seconds < 3 else "sad", 0.9)})
    timeline.save(path)
    image = np.asarray(Image.open(path).convert("RGB"))
    happy, sad = ((image == color).all(-1).sum() for color in ((0xE5, 0xA8, 0x00), (0x00, 0x72, 0xB2)))
    # Three seconds and one; the legend has a patch of each, too.
    assert 2.5 < happy / sad < 3.2
    Timeline().save(path)
    assert path.stat().st_size > 1000  # an empty figure has a message
    assert list(tmp_path.iterdir()) == [path]
