"""Classifies faces with one of the engines."""

import functools
import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fer_jax.inference.engines import ENGINES, graphs
from fer_jax.inference.export import UnsupportedError
from fer_jax.pretrained.loaded_model import LoadedModel

if TYPE_CHECKING:
    from fer_jax.evaluation.saliency import heatmaps
    from fer_jax.inference.engines.jax_engine import JaxEngine
    from fer_jax.inference.engines.onnx_engine import OnnxEngine

# JAX compiles each batch size on first use, which takes seconds.
SIZES = (1, 8, 64, 256)


class Classifier:
    """A trained network that classifies faces.

    Attributes:
      trained: the network and its metadata.
      engine: the engine that runs it, see `engines`.
      side: side of the input faces, in pixels.
      channels: channels of the input faces: 1 (grayscale) or 3 (RGB).
      emotions: class names, in the order of the probabilities.
    """

    def __init__(self, trained: LoadedModel, sizes: Sequence[int] = SIZES, engine: str = "auto"):
        """Opens the network in an engine.

        Args:
          trained: the network.
          sizes: batch sizes of the engine 'jax'; above 64 they must be multiples of 64.
          engine: 'onnx' uses ONNX Runtime on the CPU, without compilation; 'jax' uses JAX's default device
            and compiles each batch size; 'auto' is 'jax' if JAX has an accelerator or the network cannot be
            converted to ONNX, otherwise 'onnx'.

        Raises:
          ValueError: the engine is unknown, `sizes` are invalid, the weights do not fit the network, or the
            network cannot be converted to ONNX for the engine 'onnx'.
        """
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {engine!r}; there are: {', '.join(ENGINES)}")
        self.trained = trained
        self.side, _, self.channels = trained.face_shape
        self.emotions = tuple(trained.metadata["emotions"])
        self.engine = _open(trained, sizes, engine)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Returns class probabilities, calibrated by the checkpoint's temperature if it has one.

        Thread-safe.

        Args:
          faces: uint8 [N, side, side, channels], N at least 0.

        Returns:
          float64 [N, K], rows that sum to 1.

        Raises:
          ValueError: the faces have another shape or dtype, or the outputs are not finite.
        """
        shape = (self.side, self.side, self.channels)
        if faces.dtype != np.uint8 or faces.shape[1:] != shape:
            raise ValueError(f"faces are {faces.dtype} {list(faces.shape)}; expected uint8 [N, {shape}]")
        if not len(faces):
            return np.empty((0, len(self.emotions)))
        probs = self.engine(faces)
        if not np.isfinite(probs).all():
            raise ValueError(f"the outputs of {self.trained.source} are not finite: its weights are damaged")
        return probs

    def explain(self, faces: np.ndarray) -> np.ndarray:
        """Returns heatmaps of the evidence for the predicted emotion (Grad-CAM), with JAX.

        They are float32 [N, h, w], 0 or more, of faces uint8 [N, side, side, channels], N at least 1.
        """
        return self._explainer(faces, batch_size=8, progress=False)[1]

    @functools.cached_property
    def _explainer(self) -> "heatmaps.Explainer":
        from fer_jax.evaluation.saliency import heatmaps

        return heatmaps.Explainer(self.trained)


def _open(trained: LoadedModel, sizes: Sequence[int], engine: str) -> "OnnxEngine | JaxEngine":
    if engine == "onnx" or (engine == "auto" and not _has_accelerator()):
        from fer_jax.inference.engines.onnx_engine import OnnxEngine

        try:
            return OnnxEngine(trained, graphs.find(trained) or graphs.build(trained))
        except UnsupportedError as error:
            if engine == "onnx":
                raise
            logging.info("using JAX for %s: %s", trained.source, error)
    from fer_jax.inference.engines.jax_engine import JaxEngine

    return JaxEngine(trained, sizes)


def _has_accelerator() -> bool:
    """Returns whether JAX has a GPU or TPU; imports JAX only if a plugin for one is installed."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] != "cpu"
    if not any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")):
        return False
    import jax

    return jax.default_backend() != "cpu"
