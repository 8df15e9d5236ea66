"""Runs a network in JAX, with a few batch sizes to limit compilation."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fer_jax import batch_inference, runtime
from fer_jax.data import preprocessing
from fer_jax.pretrained.loaded_model import LoadedModel

# On a CPU padding is expensive: batches are filled to at least this share.
_MIN_FILL_ON_CPU = 0.75
# On a CPU a large batch is computed in parts whose features fit in the cache.
_CPU_PART = 64


class JaxEngine:
    """A network on JAX's default device."""

    name = "jax"

    def __init__(self, trained: LoadedModel, sizes: Sequence[int]):
        """Prepares the network, without compiling.

        Raises:
          ValueError: a batch size in `sizes` is below 1, or above 64 and no multiple of 64.
        """
        if not sizes or min(sizes) < 1 or any(size > _CPU_PART and size % _CPU_PART for size in sizes):
            raise ValueError(
                f"batch sizes {list(sizes)}: expected 1 or more and, above {_CPU_PART}, multiples of it"
            )
        self._sizes = tuple(sorted(sizes))
        self.batch_size = self._sizes[-1]
        self._trained = trained
        self._variables = jax.device_put(trained.variables)
        forward = preprocessing.make_forward(trained.model, **trained.normalization)
        self._forward = jax.jit(_in_parts(forward), compiler_options=runtime.compiler_options())

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Returns the probabilities float64 [N, K] of faces uint8 [N, side, side, channels], N at least 1."""
        min_fill = _MIN_FILL_ON_CPU if jax.default_backend() == "cpu" else 0.0
        batches = split_batches(len(faces), self._sizes, min_fill)
        logits = np.concatenate([self._logits(faces[part], size) for part, size in batches])
        return batch_inference.softmax(logits / self._trained.temperature)

    def warm_up(self) -> None:
        """Compiles all batch sizes."""
        for size in self._sizes:
            self(np.zeros((size, *self._trained.face_shape), np.uint8))

    def _logits(self, faces: np.ndarray, size: int) -> np.ndarray:
        filled = np.concatenate([faces, np.repeat(faces[-1:], size - len(faces), axis=0)])
        return np.asarray(self._forward(self._variables, filled), np.float64)[: len(faces)]


def split_batches(count: int, sizes: Sequence[int], min_fill: float) -> Iterator[tuple[slice, int]]:
    """Yields a slice of `count` faces and the size of each batch, one of ascending sizes.

    A batch is filled to a share of at least `min_fill` if a smaller size allows it.
    """
    start = 0
    while start < count:
        left = count - start
        size = next((size for size in sizes if size >= left), sizes[-1])
        if sizes[0] <= left < min_fill * size:
            size = max(size for size in sizes if size <= left)
        yield slice(start, start + size), size
        start += size


def _in_parts(forward: batch_inference.Forward) -> Callable[[Any, jax.Array], jax.Array]:
    """Wraps the function of `preprocessing.make_forward` to process large batches in parts on a CPU."""

    def run(variables, faces):
        if jax.default_backend() != "cpu" or len(faces) <= _CPU_PART:
            return forward(variables, faces, None)
        parts = faces.reshape(-1, _CPU_PART, *faces.shape[1:])
        logits = jax.lax.map(lambda part: forward(variables, part, None), parts)
        return logits.reshape(len(faces), -1)

    return run
