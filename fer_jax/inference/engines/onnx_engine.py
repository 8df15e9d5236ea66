"""A network in ONNX Runtime, which needs no compilation."""

import os
from typing import Any

import numpy as np
import onnxruntime

from fer_jax.inference.engines.graphs import INPUT
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.loaded_model import LoadedModel

# More faces at a time are no faster, and take more memory.
_PART = 32


class OnnxEngine:
    """A network in ONNX Runtime, on the CPU.

    Attributes:
      name: 'onnx'.
      batch_size: number of faces in its largest batches.
    """

    name = "onnx"
    batch_size = 64

    def __init__(self, trained: LoadedModel, graph: bytes):
        """Opens a graph with its weights, on as many threads as this process has cores.

        Args:
          trained: the weights.
          graph: from `graphs.find` or `graphs.build`.

        Raises:
          ValueError: if the weights do not fit the network.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _cores()
        # Threads that wait for work do not keep a core from the face detector.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        named = weights_file.flatten(trained.variables)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in named.values()]
        options.add_external_initializers(list(named), values)
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception:
            trained.model  # noqa: B018  # which raises if the weights do not fit, and says why
            raise

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Returns the probabilities float64 [N, K] of faces uint8 [N, side, side, channels], N at least 1."""
        starts = range(0, len(faces), _PART)
        parts: list[Any] = [
            self._session.run(None, {INPUT: faces[start : start + _PART]})[0] for start in starts
        ]
        probs = np.concatenate(parts).astype(np.float64)
        return probs / probs.sum(axis=1, keepdims=True)

    def warm_up(self) -> None:
        """Does nothing: the first batch is as fast as the others."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
