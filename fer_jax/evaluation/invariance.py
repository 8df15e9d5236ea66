"""Whether predictions depend on what they must not: batch size, order, number of devices, the run."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fer_jax import batch_inference
from fer_jax.data import augment

# Other batch sizes and devices may sum in another order: float32's rounding, as seen in a probability.
TOLERANCE = 1e-5
BATCH_SIZES = (1, 7, 64)
_REFERENCE_SIZE = 256

HEADER = f"{'check':12}{'compared':34}{'largest deviation':>18}{'changed':>9}"


@dataclasses.dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
      name: what was varied.
      compared: what with what.
      deviation: the largest difference of a probability (of the transform: of an input value).
      changed: images whose predicted class changed though the two probabilities it was between were
        further apart than rounding moves them.
      limit: the largest deviation that passes.
    """

    name: str
    compared: str
    deviation: float
    changed: int = 0
    limit: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether predictions do not depend on it."""
        return self.deviation <= self.limit and not self.changed

    def __str__(self) -> str:
        """A line under `HEADER`."""
        verdict = "ok" if self.passed else "FAILED"
        return f"{self.name:12}{self.compared:34}{self.deviation:18.1e}{self.changed:9,}  {verdict}"


def check_predictions(
    forward: batch_inference.Forward,
    variables: Any,
    images: Any,
    *,
    compiler_options: Mapping[str, str] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seed: int = 0,
) -> Iterator[Check]:
    """Predicts a split in many ways and compares each with one device, 256 faces at a time, in order.

    Args:
      forward: from `preprocessing.make_forward`, not compiled.
      variables: what it takes.
      images: uint8 [N, H, W, C], an array or an object with `shape` that integer arrays index.
      compiler_options: for `jax.jit`.
      batch_sizes: to compare with.
      seed: of the other order.

    Yields:
      A check as soon as it is made: the same again, each batch size, another order, each number of this
      process's devices from 2 on.

    Raises:
      ValueError: as `batch_inference.predict`.
    """
    devices = jax.local_devices()
    count = images.shape[0]

    @functools.cache
    def compiled(number):
        return batch_inference.compile_forward(forward, compiler_options, devices[:number])

    def run(batch_size=_REFERENCE_SIZE, order=None, number=1):
        return batch_inference.predict(
            compiled(number),
            variables,
            images if order is None else _Reordered(images, order),
            batch_size=batch_size,
            progress=False,
            devices=devices[:number],
        )

    reference = run()
    yield compare("run", "the same again", reference, run())
    for size in batch_sizes:
        if size < min(count, _REFERENCE_SIZE):
            compared = f"{size} at a time and {min(count, _REFERENCE_SIZE)}"
            yield compare("batch size", compared, reference, run(batch_size=size))
    order = np.random.default_rng(seed).permutation(count)
    yield compare("order", "shuffled and in order", reference[order], run(order=order))
    for number in range(2, len(devices) + 1):
        yield compare("devices", f"{number} and 1", reference, run(number=number))


def check_transform(
    prepare: Callable[[jax.Array, jax.Array], jax.Array], images: np.ndarray, again: np.ndarray
) -> Check:
    """Whether the evaluation transform gives the same bits twice, compiled anew the second time.

    Args:
      prepare: from `preprocessing.make_input`.
      images: uint8 [N, H, W, C].
      again: the same, read a second time.
    """
    whole = augment.identity_affine(len(images))
    first, second = (
        np.asarray(jax.jit(lambda images, affine: prepare(images, affine))(faces, whole))
        for faces in (images, again)
    )
    equal = first.tobytes() == second.tobytes()
    # Bits may differ where numbers do not (0 and -0), or have no difference (NaN).
    deviation = 0.0 if equal else float(np.nanmax(abs(first - second), initial=np.finfo(np.float32).tiny))
    return Check("transform", "read and drawn twice, bit by bit", deviation, limit=0.0)


def compare(name: str, compared: str, reference: np.ndarray, probs: np.ndarray) -> Check:
    """A check of probabilities float64 [N, K] against the reference, its images in the same order."""
    ours, theirs = probs.argmax(axis=1), reference.argmax(axis=1)
    rows = np.arange(len(probs))
    margin = reference[rows, theirs] - reference[rows, ours]
    changed = int(((ours != theirs) & (margin > 2 * TOLERANCE)).sum())
    return Check(name, compared, float(abs(probs - reference).max()), changed)


class _Reordered:
    """Images in another order, read when they are asked for."""

    def __init__(self, images: Any, order: np.ndarray):
        self.shape, self._images, self._order = images.shape, images, order

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self._images[self._order[index]]
