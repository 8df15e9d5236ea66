"""Writes safetensors: weights and metadata, which fer_jax reads like any checkpoint."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors

from fer_jax.inference.export.program import Program
from fer_jax.io_utils import write_atomically
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.weights_file import export_weights, with_notes

PRECISIONS = ("float32", "float16")


def write(program: Program, path: pathlib.Path, precision: str, calibration: np.ndarray | None) -> None:
    """Writes the weights; 'float16' applies to kernels."""
    export_weights(path, program.trained.variables, program.trained.metadata, precision)


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """Loads the network with the weights in the file."""
    return Program(LoadedModel(path)).run


def versions() -> dict[str, Any]:
    return {"safetensors": safetensors.__version__}


def annotate(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    write_atomically(path, with_notes(path.read_bytes(), {"export": json.dumps(metadata)}))
