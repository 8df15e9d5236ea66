"""Classifies faces in batches of a few sizes, so that few programs are compiled."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fer_jax import batch_inference, preprocessing, runtime
from fer_jax.evaluation.saliency import heatmaps
from fer_jax.loaded_model import LoadedModel

# Each batch size is compiled when it is first used, which takes seconds.
SIZES = (1, 8, 64, 256)
# On a CPU padding costs as much as faces do: batches are filled to at least this share.
_MIN_FILL_ON_CPU = 0.75
# On a CPU a large batch is computed in parts whose features stay in its caches.
_CPU_PART = 64
_EXPLAIN_BATCH = 8


class Classifier:
    """A trained network as a function of faces.

    Attributes:
      trained: the network and its metadata.
      side: side of the faces it takes, in pixels.
      channels: of these faces: 1 (grayscale) or 3 (RGB).
      emotions: class names, in the order of the probabilities.
      temperature: divides the logits; 1 if the checkpoint has none.
      sizes: batch sizes, ascending.
    """

    def __init__(self, trained: LoadedModel, sizes: Sequence[int] = SIZES):
        """Prepares the network; nothing is compiled yet.

        Args:
          trained: the network.
          sizes: batch sizes; above 64 they must be multiples of 64.

        Raises:
          ValueError: if `sizes` are not valid.
        """
        if not sizes or min(sizes) < 1 or any(size > _CPU_PART and size % _CPU_PART for size in sizes):
            raise ValueError(
                f"batch sizes {list(sizes)}: expected 1 or more, above {_CPU_PART} multiples of it"
            )
        faces = trained.metadata.get("faces") or {}
        self.sizes = tuple(sorted(sizes))
        self.trained = trained
        # No larger than in training: faces that were enlarged to the network's input were not sharp.
        self.side = min(faces.get("side") or trained.input_shape[0], trained.input_shape[0])
        self.channels = faces.get("channels", 1)
        self.emotions = tuple(trained.metadata["emotions"])
        self.temperature = (trained.metadata.get("calibration") or {}).get("temperature", 1.0)
        self._variables = jax.device_put(trained.variables)
        forward = preprocessing.make_forward(trained.model, **trained.normalization)
        self._forward = jax.jit(_in_parts(forward), compiler_options=runtime.compiler_options())

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Returns the probabilities of faces; safe to call from several threads.

        Args:
          faces: uint8 [N, side, side, channels], N from 0.

        Returns:
          float64 [N, K], rows that sum to 1.

        Raises:
          ValueError: if the faces have another shape or type, or the network's outputs are not finite.
        """
        shape = (self.side, self.side, self.channels)
        if faces.dtype != np.uint8 or faces.shape[1:] != shape:
            raise ValueError(f"faces are {faces.dtype} {list(faces.shape)}; expected uint8 [N, {shape}]")
        min_fill = _MIN_FILL_ON_CPU if jax.default_backend() == "cpu" else 0.0
        batches = split_batches(len(faces), self.sizes, min_fill)
        parts = [self._logits(faces[part], size) for part, size in batches]
        logits = np.concatenate([np.empty((0, len(self.emotions))), *parts])
        if not np.isfinite(logits).all():
            raise ValueError(f"the outputs of {self.trained.source} are not finite: its weights are damaged")
        return batch_inference.softmax(logits / self.temperature) if len(faces) else logits

    def warm_up(self) -> None:
        """Compiles all batch sizes, so that no call has to wait for it."""
        for size in self.sizes:
            self(np.zeros((size, self.side, self.side, self.channels), np.uint8))

    def explain(self, faces: np.ndarray) -> np.ndarray:
        """Returns where in faces the evidence for their most likely emotion lies (Grad-CAM).

        Args:
          faces: uint8 [N, side, side, channels], N at least 1.

        Returns:
          float32 [N, h, w], 0 or more.
        """
        return self._explainer(self._variables, faces, _EXPLAIN_BATCH, progress=False)[1]

    @functools.cached_property
    def _explainer(self) -> heatmaps.Explainer:
        return heatmaps.Explainer(self.trained.model, self.trained.normalization)

    def _logits(self, faces: np.ndarray, size: int) -> np.ndarray:
        filled = np.concatenate([faces, np.repeat(faces[-1:], size - len(faces), axis=0)])
        return np.asarray(self._forward(self._variables, filled), np.float64)[: len(faces)]


def split_batches(count: int, sizes: Sequence[int], min_fill: float) -> Iterator[tuple[slice, int]]:
    """Yields the faces of each batch and its size, filled to at least a share if a smaller size allows it.

    Args:
      count: number of faces.
      sizes: batch sizes, ascending.
      min_fill: share of a batch that is filled with faces.
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
    """Returns `preprocessing.make_forward`'s function, on a CPU applied to a large batch part by part."""

    def run(variables, faces):
        if jax.default_backend() != "cpu" or len(faces) <= _CPU_PART:
            return forward(variables, faces, None)
        parts = faces.reshape(-1, _CPU_PART, *faces.shape[1:])
        logits = jax.lax.map(lambda part: forward(variables, part, None), parts)
        return logits.reshape(len(faces), -1)

    return run
