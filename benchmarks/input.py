"""Measures the throughput of the input pipeline, compared with tf.data and torch.

    python benchmarks/input.py

The first part measures the host side: shuffled batches of faces with augmentation parameters. The peers do
the same work: they shuffle the same faces, gather entire batches (faster than single faces), and draw the
same parameters with the same function. Peers that are not installed are skipped. The goal is 50,000 faces of
48x48 per second and core.

The second part measures the augmentation on the default device. benchmarks/step.py measures how long training
waits for input.
"""

import functools
import importlib.util
import itertools
import os
import statistics
import sys
import time
import timeit
from collections.abc import Iterator

import jax
import numpy as np

from fer_jax.commands import common
from fer_jax.data import augment, pipeline, transforms
from fer_jax.data.faces import Faces, one_hot

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

RATE_GOAL = 50_000
COUNT, SIDE = 28_709, 48  # the training split of FER2013
WARM_UP = 20  # batches
ROUNDS = 3


def random_faces() -> Faces:
    """Returns noise in the shape of FER2013's training split; speed does not depend on the content."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, COUNT).astype(np.int32)
    images = rng.integers(0, 256, (COUNT, SIDE, SIDE, 1), dtype=np.uint8)
    return Faces(images, labels, one_hot(labels), [str(i) for i in range(COUNT)])


def fer_jax_stream(faces: Faces, batch_size: int, ranges: augment.Ranges) -> Iterator:
    """Returns the stream used in training."""
    return pipeline.TrainStream(faces, batch_size, ranges, seed=0)


def tf_stream(faces: Faces, batch_size: int, ranges: augment.Ranges) -> Iterator:
    """Returns a tf.data stream over indices; each batch is gathered at once."""
    import tensorflow as tf

    with tf.device("CPU"):
        images, targets = tf.constant(faces.images), tf.constant(faces.targets)
    rng = np.random.default_rng(0)

    def draw():
        return tuple(augment.draw(ranges, batch_size, rng).values())

    drawn = functools.partial(tf.numpy_function, draw, [], [tf.float32] * len(draw()))
    dataset = tf.data.Dataset.range(len(faces)).shuffle(len(faces)).repeat().batch(batch_size)
    dataset = dataset.map(lambda i: (tf.gather(images, i), tf.gather(targets, i), *drawn()))
    return dataset.prefetch(pipeline.READ_AHEAD).as_numpy_iterator()


def torch_stream(faces: Faces, batch_size: int, ranges: augment.Ranges) -> Iterator:
    """Returns a torch DataLoader stream over batches of indices; each batch is gathered at once."""
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler

    rng = np.random.default_rng(0)
    images, targets = torch.from_numpy(faces.images), torch.from_numpy(faces.targets)

    class Batches(torch.utils.data.Dataset):
        def __getitem__(self, indices):
            drawn = augment.draw(ranges, len(indices), rng)
            tensors = {name: torch.from_numpy(value) for name, value in drawn.items()}
            # Much faster than images[indices].
            indices = torch.tensor(indices)
            image, target = images.index_select(0, indices), targets.index_select(0, indices)
            return {"image": image, "target": target, **tensors}

    sampler = BatchSampler(RandomSampler(images), batch_size, drop_last=True)
    loader = DataLoader(Batches(), sampler=sampler, batch_size=None)
    return itertools.chain.from_iterable(itertools.repeat(loader))


# Name, required module, function that returns an endless stream.
STREAMS = (
    ("fer_jax (Grain)", "grain", fer_jax_stream),
    ("tf.data", "tensorflow", tf_stream),
    ("torch DataLoader", "torch", torch_stream),
)


def measure(stream: Iterator, batch_size: int, seconds: float) -> tuple[float, float]:
    """Returns faces per second of wall time, and of CPU time over all threads, that is, per core."""
    started, used, batches = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        next(stream)
        batches += 1
    faces = batches * batch_size
    return faces / (time.perf_counter() - started), faces / (time.process_time() - used)


def compare_streams(
    faces: Faces, batch_size: int, ranges: augment.Ranges, seconds: float
) -> dict[str, float]:
    """Prints the rates of all streams, measured in turns; returns the medians per core."""
    streams = {}
    for name, module, make in STREAMS:
        if importlib.util.find_spec(module) is None:
            print(f"{name:20s} skipped: {module} is not installed")
            continue
        streams[name] = make(faces, batch_size, ranges)
        for _ in range(WARM_UP):
            next(streams[name])
    rates = {name: [] for name in streams}
    for _ in range(ROUNDS):
        for name, stream in streams.items():
            rates[name].append(measure(stream, batch_size, seconds / ROUNDS))
    per_core = {}
    for name, rounds in rates.items():
        wall, per_core[name] = (statistics.median(rate) for rate in zip(*rounds, strict=True))
        print(f"{name:20s} {wall:10,.0f} faces/s {per_core[name]:10,.0f} faces/s per core")
    return per_core


def measure_augmentation(faces: Faces, batch_size: int, ranges: augment.Ranges) -> None:
    """Prints the time of the augmentation on the device."""
    stream = fer_jax_stream(faces, batch_size, ranges)
    batch = jax.device_put(next(stream))
    stream.close()
    apply = jax.jit(functools.partial(transforms.apply, size=SIDE))
    jax.block_until_ready(apply(batch))  # compiles
    seconds = statistics.median(
        timeit.repeat(lambda: jax.block_until_ready(apply(batch)), number=1, repeat=50)
    )
    print(
        f"all augmentations on {jax.default_backend()}: {1e3 * seconds:.2f} ms "
        f"for {batch_size} faces of {SIDE}x{SIDE}"
    )


def main() -> int:
    """Prints all measurements; returns 1 if the goal is missed."""
    parser = common.plain_parser(__doc__)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--preset", choices=sorted(augment.PRESETS), default="cnn")
    parser.add_argument("--seconds", type=float, default=6, help="duration of measuring each stream")
    options = parser.parse_args()
    faces, ranges = random_faces(), augment.PRESETS[options.preset]
    rates = compare_streams(faces, options.batch_size, ranges, options.seconds)
    measure_augmentation(faces, options.batch_size, ranges)
    missed = rates[STREAMS[0][0]] < RATE_GOAL
    print(f"goal (over {RATE_GOAL:,} faces/s per core): {'MISSED' if missed else 'met'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
