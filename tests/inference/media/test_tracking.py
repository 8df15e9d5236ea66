"""Tests tracking in synthetic scenes."""

import json

import numpy as np

from fer_jax.inference.media.tracking import Tracker
from fer_jax.inference.structures import Box, Detection, Face

SURE, OTHER = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def square(x, probabilities=SURE):
    """Returns a face of 10 x 10 pixels."""
    box = Box(x, 0.0, 10.0, 10.0)
    return Face(Detection(box, 1.0, box), ("happy", "sad"), probabilities, 0.5)


def numbers(tracker, faces, seconds):
    return [track.number for track in tracker.update(faces, seconds)]


def test_faces_that_move_keep_their_numbers_whatever_their_order():
    tracker = Tracker()
    assert numbers(tracker, [square(0), square(50)], 0.0) == [1, 2]
    assert numbers(tracker, [square(48), square(2)], 0.1) == [2, 1]
    assert numbers(tracker, [square(4), square(46)], 0.2) == [1, 2]


def test_the_best_sum_of_overlaps_decides_and_not_the_first_come():
    tracker = Tracker()
    numbers(tracker, [square(0), square(4)], 0.0)
    # The first box overlaps most with track 2, but the second box overlaps only with track 2.
    assert numbers(tracker, [square(3), square(7)], 0.1) == [1, 2]


def test_a_face_out_of_sight_comes_back_under_its_number_within_a_second():
    tracker = Tracker()
    assert numbers(tracker, [square(0)], 0.0) == [1]
    assert numbers(tracker, [], 0.5) == []
    assert numbers(tracker, [square(1)], 1.0) == [1]
    assert numbers(tracker, [square(1)], 2.1) == [2]


def test_a_face_elsewhere_is_a_new_one():
    tracker = Tracker()
    assert numbers(tracker, [square(0)], 0.0) == [1]
    assert numbers(tracker, [square(8)], 0.1) == [2]  # 2 / 18 of overlap
    assert numbers(tracker, [square(0), square(8)], 0.2) == [1, 2]


def test_probabilities_are_averaged_over_time_by_seconds_and_not_by_frames():
    coarse, fine = Tracker(), Tracker()
    for tracker in (coarse, fine):
        tracker.update([square(0)], 0.0)
    (smooth,) = coarse.update([square(0, OTHER)], 0.5)
    np.testing.assert_allclose(smooth.probabilities, [np.exp(-1), 1 - np.exp(-1)])
    for seconds in np.linspace(0, 0.5, 11)[1:]:
        (finer,) = fine.update([square(0, OTHER)], seconds)
    np.testing.assert_allclose(finer.probabilities, smooth.probabilities)
    assert smooth.smooth(square(0)).emotion == "sad"


def test_what_was_given_does_not_change_later():
    tracker, given = Tracker(), SURE.copy()
    (first,) = tracker.update([square(0, given)], 0.0)
    tracker.update([square(1, OTHER)], 0.5)
    np.testing.assert_array_equal(first.probabilities, SURE)
    np.testing.assert_array_equal(given, SURE)
    assert first.box == square(0).box


def test_a_tracker_continues_from_its_state():
    rng = np.random.default_rng(0)
    whole, stopped = Tracker(), Tracker()
    for frame in range(40):
        if frame == 20:
            stopped = Tracker.restore(json.loads(json.dumps(stopped.state())))
        places = rng.permutation([0, 30, 60])[: rng.integers(4)]
        faces = [square(x + rng.normal(), rng.dirichlet([1, 1])) for x in places]
        pairs = zip(whole.update(faces, frame / 10), stopped.update(faces, frame / 10), strict=True)
        for one, other in pairs:
            assert (one.number, one.box) == (other.number, other.box)
            np.testing.assert_array_equal(one.probabilities, other.probabilities)
    whole.clear()
    assert numbers(whole, [square(0)], 0.0) == [1]


def test_no_box_has_two_numbers():
    tracker = Tracker()
    assert sorted(numbers(tracker, [square(0)] * 3, 0.0)) == [1, 2, 3]
    assert sorted(numbers(tracker, [square(0)] * 3, 0.1)) == [1, 2, 3]
