"""Tests detection in a background thread and classification in batches."""

import threading

import numpy as np
import pytest
from PIL import Image

from fer_jax.inference.media import stream
from fer_jax.inference.media.inputs import Input
from fer_jax.inference.media.stream import ahead
from fer_jax.inference.media.tracking import Tracker


def test_items_come_in_order_and_only_so_many_ahead():
    taken, allowed = [], threading.Semaphore(0)

    def items():
        for i in range(20):
            taken.append(i)
            if i == 4:
                allowed.release()  # four are prefetched, one was consumed
            yield i

    found = ahead(items(), 4)
    assert next(found) == 0
    assert allowed.acquire(timeout=60)
    assert len(taken) <= 5
    assert list(found) == list(range(1, 20))


def test_an_error_is_raised_where_the_item_would_have_come():
    def items():
        yield 1
        raise ValueError("broken")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_what_is_not_used_to_its_end_is_closed():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    found = ahead(items(), 2)
    next(found)
    found.close()
    assert closed.is_set()


@pytest.fixture
def images(tmp_path):
    """Returns files of six faces, the third of them damaged."""
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"")
    return [Input(str(tmp_path / f"{i}.png"), f"{i}.png") for i in range(6)]


def test_faces_are_classified_together_and_given_back_to_their_images(images, tiny_predictor, monkeypatch):
    expected = [tiny_predictor(one.path)[0].faces[0].probabilities for one in images if one.name != "2.png"]
    batches, classify = [], tiny_predictor.classify

    def note(crops, found):
        batches.append(len(crops))
        return classify(crops, found)

    monkeypatch.setattr(tiny_predictor, "classify", note)
    monkeypatch.setattr(tiny_predictor.classifier.engine, "batch_size", 4)
    found = list(stream.classify(stream.detect(images, tiny_predictor), tiny_predictor, Tracker()))
    assert batches == [4, 1]
    assert [frame.source for frame, _, _ in found] == [one.path for one in images]
    assert [len(faces) for _, faces, _ in found] == [1, 1, 0, 1, 1, 1]
    assert "2.png: cannot be decoded" in found[2][0].error and found[2][0].size is None
    rows = [faces[0].probabilities for _, faces, _ in found if faces]
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert all(frame.image is None and not tracks for frame, _, tracks in found)


def test_images_are_kept_if_they_are_to_be_annotated(images, tiny_predictor):
    for one in stream.detect(images[:2], tiny_predictor, keep_images=True):
        np.testing.assert_array_equal(one.image, np.asarray(Image.open(one.source)))
