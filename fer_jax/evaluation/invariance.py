"""Checks that predictions do not depend on batch size, order, or number of devices, and are repeatable."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fer_jax import batch_inference
from fer_jax.data import augment
from fer_jax.data.faces import LazyImages

# Rounding of float32 in probabilities: other batch sizes and devices may sum in another order.
TOLERANCE = 1e-5
BATCH_SIZES = (1, 7, 64)
_REFERENCE_SIZE = 256

HEADER = f"{'check':12}{'compared':34}{'largest deviation':>18}{'changed':>9}"


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str  # what was varied
    compared: str  # the two variants
    deviation: float  # largest difference of a probability (for the transform, of an input value)
    changed: int = 0  # number of images whose predicted class changed beyond rounding
    limit: float = TOLERANCE  # largest deviation that passes

    @property
    def passed(self) -> bool:
        """Whether predictions are invariant."""
        return self.deviation <= self.limit and not self.changed

    def __str__(self) -> str:
        """Formats a row under `HEADER`."""
        verdict = "ok" if self.passed else "FAILED"
        return f"{self.name:12}{self.compared:34}{self.deviation:18.1e}{self.changed:9,}  {verdict}"


def check_predictions(forward: batch_inference.Forward, variables: Any, images: Any) -> Iterator[Check]:
    """Compares predictions with reference predictions: in order, in batches of 256, on one device.

    `forward` is from `preprocessing.make_forward`, not compiled; `images` are uint8 [N, H, W, C], an array or
    an object with `shape` that integer arrays index.

    Yields:
      A check each for a second run, each batch size, a permutation, and each number of local devices from 2.

    Raises:
      ValueError: as `batch_inference.predict`.
    """
    devices = jax.local_devices()
    count = images.shape[0]

    @functools.cache
    def compiled(number: int) -> batch_inference.Forward:
        return batch_inference.compile_forward(forward, devices[:number])

    def run(images: Any = images, batch_size: int = _REFERENCE_SIZE, number: int = 1) -> np.ndarray:
        used = devices[:number]
        return batch_inference.predict(
            compiled(number), variables, images, batch_size=batch_size, progress=False, devices=used
        )

    reference = run()
    yield compare("run", "the same again", reference, run())
    for size in BATCH_SIZES:
        if size < min(count, _REFERENCE_SIZE):
            compared = f"{size} at a time and {min(count, _REFERENCE_SIZE)}"
            yield compare("batch size", compared, reference, run(batch_size=size))
    order = np.random.default_rng(0).permutation(count)
    shuffled = LazyImages(images.shape, lambda index: images[order[index]])
    yield compare("order", "shuffled and in order", reference[order], run(shuffled))
    for number in range(2, len(devices) + 1):
        yield compare("devices", f"{number} and 1", reference, run(number=number))


def check_transform(
    prepare: Callable[[jax.Array, jax.Array], jax.Array], images: np.ndarray, again: np.ndarray
) -> Check:
    """Checks that two compilations of the evaluation transform give identical bits.

    `again` are the same images uint8 [N, H, W, C], read a second time.
    """
    affine = augment.identity_affine(len(images))
    first, second = (
        np.asarray(jax.jit(lambda images, affine: prepare(images, affine))(faces, affine))
        for faces in (images, again)
    )
    equal = first.tobytes() == second.tobytes()
    # Bits may differ for equal numbers (0 and -0), and NaN has no difference.
    deviation = 0.0 if equal else float(np.nanmax(abs(first - second), initial=np.finfo(np.float32).tiny))
    return Check("transform", "read and drawn twice, bit by bit", deviation, limit=0.0)


def compare(name: str, compared: str, reference: np.ndarray, probs: np.ndarray) -> Check:
    """Compares probabilities float64 [N, K] with a reference in the same order."""
    ours, theirs = probs.argmax(axis=1), reference.argmax(axis=1)
    rows = np.arange(len(probs))
    margin = reference[rows, theirs] - reference[rows, ours]
    changed = int(((ours != theirs) & (margin > 2 * TOLERANCE)).sum())
    return Check(name, compared, float(abs(probs - reference).max()), changed)
