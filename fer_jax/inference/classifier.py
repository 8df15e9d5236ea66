"""Classifies faces by one of the engines."""

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

# Each batch size is compiled by JAX when it is first used, which takes seconds.
SIZES = (1, 8, 64, 256)
_EXPLAIN_BATCH = 8


class Classifier:
    """A trained network as a function of faces.

    Attributes:
      trained: the network and its metadata.
      engine: what computes it, see `engines`.
      side: side of the faces it takes, in pixels.
      channels: of these faces: 1 (grayscale) or 3 (RGB).
      emotions: class names, in the order of the probabilities.
    """

    def __init__(self, trained: LoadedModel, sizes: Sequence[int] = SIZES, engine: str = "auto"):
        """Opens the network in an engine.

        Args:
          trained: the network.
          sizes: batch sizes of the engine 'jax'; above 64 they must be multiples of 64.
          engine: 'onnx' is ONNX Runtime, on CPUs, which starts at once; 'jax' uses JAX's default device and
            compiles each batch size; 'auto' is 'jax' where JAX has an accelerator, or for a network that
            cannot be converted to ONNX.

        Raises:
          ValueError: if there is no such engine, `sizes` are not valid, or the weights do not fit the
            network; or if the network cannot be converted to ONNX, which was asked for.
        """
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {engine!r}; there are: {', '.join(ENGINES)}")
        self.trained = trained
        self.side, _, self.channels = trained.face_shape
        self.emotions = tuple(trained.metadata["emotions"])
        self.engine = _open(trained, sizes, engine)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Returns the probabilities of faces, calibrated by the checkpoint's temperature if it has one.

        Safe to call from several threads.

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
        if not len(faces):
            return np.empty((0, len(self.emotions)))
        probs = self.engine(faces)
        if not np.isfinite(probs).all():
            raise ValueError(f"the outputs of {self.trained.source} are not finite: its weights are damaged")
        return probs

    def explain(self, faces: np.ndarray) -> np.ndarray:
        """Returns where in faces the evidence for their most likely emotion lies (Grad-CAM), by JAX.

        Args:
          faces: uint8 [N, side, side, channels], N at least 1.

        Returns:
          float32 [N, h, w], 0 or more.
        """
        return self._explainer(self.trained.variables, faces, _EXPLAIN_BATCH, progress=False)[1]

    @functools.cached_property
    def _explainer(self) -> "heatmaps.Explainer":
        from fer_jax.evaluation.saliency import heatmaps

        return heatmaps.Explainer(self.trained.model, self.trained.normalization)


def _open(trained: LoadedModel, sizes: Sequence[int], engine: str) -> "OnnxEngine | JaxEngine":
    if engine == "onnx" or (engine == "auto" and not _has_accelerator()):
        from fer_jax.inference.engines.onnx_engine import OnnxEngine

        try:
            return OnnxEngine(trained, graphs.find(trained) or graphs.build(trained))
        except UnsupportedError as error:
            if engine == "onnx":
                raise
            logging.info("%s is computed by JAX: %s", trained.source, error)
    from fer_jax.inference.engines.jax_engine import JaxEngine

    return JaxEngine(trained, sizes)


def _has_accelerator() -> bool:
    """Returns whether JAX computes on a GPU or TPU; imports JAX only if it has a plugin for one."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] != "cpu"
    if not any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")):
        return False
    import jax

    return jax.default_backend() != "cpu"
