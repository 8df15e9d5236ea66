"""Tests the stream: every face once per epoch, independent of workers, processes, and restarts."""

import concurrent.futures
import itertools
import json
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data import augment, pipeline, transforms
from fer_jax.data.dataset import read
from fer_jax.data.faces import Faces, one_hot
from fer_jax.data.sources import synthetic

RANGES = augment.Ranges(flip=0.5, rotation=15, contrast=(0.6, 1.4), erasing=0.25, mixup=0.4)
KEYS = {"image", "target", "affine", "color", "erase", "mix"}


def numbered_faces(count, channels=1):
    """Returns faces that encode their number in the first two pixels."""
    images = np.zeros((count, 4, 6, channels), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(count), 256)
    labels = (np.arange(count) % 7).astype(np.int32)
    return Faces(images, labels, one_hot(labels), [f"face {i}" for i in range(count)])


def numbers(batch):
    """Returns the numbers of the faces in a batch."""
    return batch["image"][:, 0, 0, 0].astype(int) * 256 + batch["image"][:, 0, 1, 0]


def take(stream, count):
    """Returns the next batches of a stream, and closes it."""
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert set(batch) == set(other) == KEYS
        for name, value in batch.items():
            assert value.dtype == other[name].dtype
            np.testing.assert_array_equal(value, other[name])


def stream(faces, batch_size=12, ranges=RANGES, seed=5, **kwargs):
    return pipeline.TrainStream(faces, batch_size, ranges, seed, **kwargs)


@pytest.fixture(scope="module")
def reference():
    """Returns the first twelve batches (three epochs of 47 faces) in one process without restarts."""
    return take(stream(numbered_faces(47)), 12)


def test_batches_have_the_documented_form():
    (batch,) = take(stream(numbered_faces(30, channels=3)), 1)
    shapes = {name: value.shape[1:] for name, value in batch.items()}
    rest = {"affine": (2, 3), "color": (3,), "erase": (4,), "mix": (5,)}
    assert shapes == {"image": (4, 6, 3), "target": (7,)} | rest
    assert {value.dtype.name for name, value in batch.items() if name != "image"} == {"float32"}
    assert batch["image"].dtype == np.uint8 and {len(value) for value in batch.values()} == {12}


def test_faces_keep_their_targets(reference):
    for batch in reference:
        np.testing.assert_array_equal(batch["target"], one_hot(numbers(batch) % 7))


def test_every_epoch_shows_every_face_once_in_a_new_order(reference):
    seen = np.concatenate([numbers(batch) for batch in reference])[: 3 * 47].reshape(3, 47)
    for epoch in seen:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(47))
    # Each epoch's order differs from that of the file and of other epochs.
    orders = [np.arange(47), *seen]
    for first, second in itertools.combinations(orders, 2):
        assert np.mean(first == second) < 0.2
    assert stream(numbered_faces(47)).batches_per_epoch == 47 / 12


def test_parameters_differ_between_batches_and_epochs(reference):
    affine = np.concatenate([batch["affine"] for batch in reference]).reshape(-1, 6)
    assert len(np.unique(affine, axis=0)) == len(affine)


def test_seeds_decide_order_and_parameters(reference):
    faces = numbered_faces(47)
    assert_same(take(stream(faces), 12), reference)
    other = take(stream(faces, seed=6), 12)
    # Epochs of adjacent seeds must not be the same, shifted by one.
    for shift in (0, 47):
        first = np.concatenate([numbers(batch) for batch in reference])[shift : shift + 47]
        assert np.mean(first == np.concatenate([numbers(b) for b in other])[:47]) < 0.2
    assert (other[0]["affine"] != reference[0]["affine"]).any()


def skewed_faces(counts=(20, 2, 9, 0, 12, 3, 1)):
    """Returns 47 numbered faces with imbalanced, shuffled labels."""
    faces, labels = numbered_faces(sum(counts)), np.repeat(np.arange(7), counts).astype(np.int32)
    labels = np.random.default_rng(8).permutation(labels)
    return Faces(faces.images, labels, one_hot(labels), faces.ids)


@pytest.fixture(scope="module")
def balanced():
    """Returns the first twelve batches of imbalanced faces, with balancing 0.5."""
    return take(stream(skewed_faces(), balancing=0.5), 12)


@pytest.fixture(scope="module")
def streams(reference, balanced):
    """Returns by name: faces, options, and their first twelve batches."""
    even, skewed = numbered_faces(47), skewed_faces()
    return {"reference": (even, {}, reference), "balanced": (skewed, {"balancing": 0.5}, balanced)}


def test_a_balanced_epoch_has_as_many_faces_each_class_its_share(balanced):
    faces = skewed_faces()
    seen = np.concatenate([numbers(batch) for batch in balanced])[: 3 * 47].reshape(3, 47)
    roots = np.sqrt([20, 2, 9, 0, 12, 3, 1])
    for epoch in seen:
        drawn = np.bincount(faces.labels[epoch], minlength=7)
        assert (abs(drawn - 47 * roots / roots.sum()) < 1).all()
    assert not (seen[0] == seen[1]).all()
    assert stream(faces, balancing=0.5).batches_per_epoch == 47 / 12
    targets = np.concatenate([batch["target"] for batch in balanced])
    np.testing.assert_array_equal(targets, faces.targets[np.concatenate([numbers(b) for b in balanced])])


def whole(faces, process_count, count, first=0, **kwargs):
    """Returns the concatenated batches of several processes, after a `restore`."""
    parts = []
    for i in range(process_count):
        part = stream(faces, process_index=i, process_count=process_count, **kwargs)
        part.restore(json.loads(json.dumps({"next_batch": first})))
        parts.append(take(part, count))
    batches = zip(*parts, strict=True)
    return [{name: np.concatenate([part[name] for part in batch]) for name in KEYS} for batch in batches]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.sampled_from([1, 2, 3, 6]), st.integers(0, 11), st.sampled_from(["reference", "balanced"]))
def test_any_number_of_processes_sees_the_same_stream_from_any_batch_on(streams, process_count, first, name):
    faces, kwargs, expected = streams[name]
    assert_same(whole(faces, process_count, 12 - first, first, **kwargs), expected[first:])


@pytest.mark.parametrize("name, workers", [("reference", 2), ("balanced", 1)])
def test_workers_do_not_change_the_stream(streams, name, workers):
    faces, kwargs, expected = streams[name]
    assert_same(whole(faces, 1, 7, 5, num_workers=workers, **kwargs), expected[5:])


def test_a_worker_reads_a_streamed_split(tiny_data):
    memory, streamed = (read.load(tiny_data, "train", max_bytes=limit) for limit in (2**30, 0))
    assert isinstance(memory.images, np.ndarray) and not isinstance(streamed.images, np.ndarray)
    assert_same(take(stream(streamed, num_workers=1), 7), take(stream(memory), 7))


def test_an_old_and_a_new_read_ahead_may_overlap():
    """A `restore` does not wait for the thread that it stops."""
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(7), (18_000, 1)), axis=1)
    indices = pipeline._Indices(orders, 7, 12)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            parts = pool.map(lambda start: [indices(start + i) for i in range(5000)], (0, 5000))
            found = np.concatenate([batch for part in parts for batch in part])
    finally:
        sys.setswitchinterval(interval)
    np.testing.assert_array_equal(found, orders.ravel()[: len(found)])


def test_a_stream_goes_back_to_a_state(reference):
    first = stream(numbered_faces(47))
    for _ in range(4):
        next(first)
    assert (state := first.state()) == {"next_batch": 4}
    next(first)
    first.restore(state)
    assert first.state() == state
    assert_same(take(first, 8), reference[4:])


def test_resuming_far_into_a_run():
    resumed = stream(numbered_faces(47))
    resumed.restore({"next_batch": 10**9})
    (batch,) = take(resumed, 1)
    assert batch["image"].shape == (12, 4, 6, 1)


@pytest.mark.parametrize("count", [1, 5])
def test_fewer_faces_than_a_batch_come_several_times(count):
    for batch in take(stream(numbered_faces(count)), 1):
        times = np.bincount(numbers(batch), minlength=count)
        assert times.sum() == 12 and times.min() >= 12 // count and times.max() <= -(-12 // count)


@pytest.mark.parametrize(
    "faces, kwargs, message",
    [
        (20, dict(batch_size=10, process_count=4), "10 is not divisible by 4 processes"),
        (20, dict(batch_size=0), "the batch size 0"),
        (20, dict(batch_size=6, process_count=2), "each of 2 processes has 3 faces, an odd number"),
        (0, dict(), "the training split is empty"),
    ],
)
def test_refuses(faces, kwargs, message):
    with pytest.raises(ValueError, match=message):
        stream(numbered_faces(faces), **kwargs)


def test_an_odd_batch_is_fine_without_mixing():
    (batch,) = take(stream(numbered_faces(20), batch_size=7, ranges=augment.PRESETS["cnn"]), 1)
    x, targets = transforms.apply(batch, 4)
    assert x.shape == (7, 4, 4, 1) and targets.shape == (7, 7)


def test_a_failure_while_reading_reaches_the_consumer():
    class Unreadable:
        shape = (20, 4, 6, 1)

        def __getitem__(self, index):
            raise OSError("the disk is gone")

    faces = numbered_faces(20)
    broken = Faces(Unreadable(), faces.labels, faces.targets, faces.ids)
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream(broken))


def test_waiting_is_counted(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: float(next(clock)))
    source = stream(numbered_faces(20))
    next(source), next(source)
    source.close()
    # Other threads may read the clock too, so at least one tick each.
    assert source.wait_seconds >= 2


def test_contact_sheet_shows_the_faces_in_reading_order():
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    batch = {"image": images, "target": np.zeros((10, 7), np.float32), **augment.identity(10)}
    sheet = pipeline.contact_sheet(batch, 8, columns=4, max_faces=6)
    assert sheet.dtype == np.uint8 and sheet.shape == (18, 36, 3)
    for i in range(6):
        top, left = i // 4 * 9, i % 4 * 9
        np.testing.assert_array_equal(sheet[top : top + 8, left : left + 8], images[i])
    assert not sheet[9:, 18:].any()


def test_augmented_faces_keep_their_mean_and_targets():
    images, labels = synthetic.generate(20, 0, "train")
    faces = Faces(images, labels, one_hot(labels), [str(i) for i in range(len(labels))])
    apply = jax.jit(transforms.apply, static_argnums=(1, 2, 3))
    for name, ranges in augment.PRESETS.items():
        (batch,) = take(stream(faces, batch_size=64, ranges=ranges), 1)
        x, targets = apply(batch, 48, ranges.fill, 0.508)
        assert x.min() >= 0 and x.max() <= 1
        assert abs(float(x.mean()) - batch["image"].mean() / 255) < 0.05, name
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
