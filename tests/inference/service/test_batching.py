"""The batcher, with functions that wait until they are let: what is worked on together, in which order."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from fer_jax.inference import classifier
from fer_jax.inference.classifier import Classifier
from fer_jax.inference.service.batching import Batcher, ClosedError, QueueFullError
from fer_jax.loaded_model import LoadedModel

LONG = 60  # seconds: no test comes near


class Work:
    """A function of items that notes its batches; the first one lasts until `go_on` is set."""

    def __init__(self):
        self.begun, self.go_on, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, items):
        self.batches.append(items)
        self.begun.set()
        assert self.go_on.wait(LONG)
        return [-item for item in items]


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def busy(work):
    """Makes batchers that are at work on their first item, 0."""
    made = []

    def make(**options):
        made.append(Batcher(work, **{"size": 4, "wait": 0.0} | options))
        first = made[-1].submit([0])
        assert work.begun.wait(LONG)
        return made[-1], first

    yield make
    work.go_on.set()
    for batcher in made:
        batcher.close()


def test_what_gathers_meanwhile_is_worked_on_together_and_each_gets_its_own(work, busy):
    batcher, first = busy()
    futures = [batcher.submit(items) for items in ([1, 2], [3], [4], [5, 6, 7, 8, 9], [10])]
    assert batcher.waiting == 10
    work.go_on.set()
    assert [future.result(LONG) for future in (first, *futures)] == [
        [0],
        [-1, -2],
        [-3],
        [-4],
        [-5, -6, -7, -8, -9],
        [-10],
    ]
    # In turn, at most 4 together, but what one caller hands in is never divided.
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8, 9], [10]]
    assert batcher.waiting == 0


def test_the_first_waits_for_others_until_the_batch_is_full():
    batches = []

    def note(items):
        batches.append(items)
        return items

    batcher = Batcher(note, size=3, wait=LONG)
    futures = [batcher.submit([number]) for number in range(3)]
    assert [future.result(LONG / 2) for future in futures] == [[0], [1], [2]]
    assert batches == [[0, 1, 2]]
    last = batcher.submit([3])
    batcher.close()  # which waits for nobody
    assert last.result(0) == [3]


def test_no_more_waits_than_may(work, busy):
    batcher, _ = busy(capacity=3)
    whole = batcher.submit([1, 2, 3, 4])  # alone it may be more
    with pytest.raises(QueueFullError, match="4 items wait, 1 more would pass the limit of 3"):
        batcher.submit([5])
    work.go_on.set()
    assert whole.result(LONG) == [-1, -2, -3, -4]
    assert batcher.submit([5]).result(LONG) == [-5]


def test_what_is_cancelled_is_not_worked_on(work, busy):
    batcher, first = busy()
    cancelled, kept = batcher.submit([1]), batcher.submit([2])
    assert cancelled.cancel()
    work.go_on.set()
    assert kept.result(LONG) == [-2] and first.result(LONG) == [0]
    assert work.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        cancelled.result(0)


def test_a_failure_goes_to_all_in_the_batch_and_the_next_one_works(work, busy):
    def fail_once(items):
        results = work(items)
        if 1 in items:
            raise ZeroDivisionError("no")
        return results

    batcher = Batcher(fail_once, size=2, wait=LONG)
    work.go_on.set()
    failing = [batcher.submit([1]), batcher.submit([2])]
    for future in failing:
        with pytest.raises(ZeroDivisionError):
            future.result(LONG)
    assert batcher.submit([3, 4]).result(LONG) == [-3, -4]
    batcher.close()


def test_closing_finishes_what_was_taken_and_takes_nothing_more(work, busy):
    batcher, first = busy()
    accepted = [batcher.submit([number]) for number in range(1, 10)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    work.go_on.set()
    closing.join(LONG)
    assert not closing.is_alive()
    assert [future.result(0) for future in (first, *accepted)] == [[-number] for number in range(10)]
    with pytest.raises(ClosedError):
        batcher.submit([10])


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 1, "wait": -1}, {"size": 1, "capacity": 0}])
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match="expected 1, 0 and 1 at least"):
        Batcher(list, **wrong)


def test_a_batch_is_worth_its_size(monkeypatch, tiny_run):
    """On a CPU no batch of several is less than three quarters full; elsewhere there are as few as can be."""
    network, used = Classifier(LoadedModel(tiny_run), sizes=(1, 4, 16)), []
    forward = network._forward
    monkeypatch.setattr(
        network, "_forward", lambda variables, faces: used.append(len(faces)) or forward(variables, faces)
    )
    faces = np.random.default_rng(0).integers(0, 256, (35, 48, 48, 1), dtype=np.uint8)
    one_by_one = np.concatenate([network(faces[i : i + 1]) for i in range(35)])
    batches = {0: [], 2: [1, 1], 3: [4], 6: [4, 1, 1], 11: [4, 4, 4], 12: [16], 35: [16, 16, 4]}
    for count, expected in batches.items():
        used.clear()
        np.testing.assert_allclose(network(faces[:count]), one_by_one[:count], atol=1e-6)
        assert used == expected, count
    monkeypatch.setattr(classifier.jax, "default_backend", lambda: "gpu")
    for count, expected in {1: [1], 2: [4], 5: [16], 17: [16, 1]}.items():
        used.clear()
        np.testing.assert_allclose(network(faces[:count]), one_by_one[:count], atol=1e-6)
        assert used == expected, count
