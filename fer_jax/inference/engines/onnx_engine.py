"""Runs a network in ONNX Runtime, without compilation."""

import os
from typing import Any

import numpy as np
import onnxruntime

from fer_jax.inference.engines.graphs import INPUT
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.loaded_model import LoadedModel

# Larger batches are no faster and need more memory.
_PART = 32


class OnnxEngine:
    """A network in ONNX Runtime, on the CPU."""

    name = "onnx"
    batch_size = 64

    def __init__(self, trained: LoadedModel, graph: bytes):
        """Opens a graph (see `graphs`) with its weights, with one thread per core of this process.

        Raises:
          ValueError: the weights do not fit the network.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _cores()
        # Idle threads must not occupy cores that the face detector needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        named = weights_file.flatten(trained.variables)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in named.values()]
        options.add_external_initializers(list(named), values)
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception:
            trained.model  # noqa: B018  # raises an explanation if the weights do not fit
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
        """Does nothing, because there is no compilation."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
