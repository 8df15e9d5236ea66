"""safetensors: the weights and the facts about them, which this project reads like any checkpoint."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors
from safetensors import numpy as arrays

from fer_jax.inference.export.program import Program
from fer_jax.io_utils import write_atomically
from fer_jax.loaded_model import LoadedModel
from fer_jax.weights_file import export_weights

PRECISIONS = ("float32", "float16")


def write(program: Program, path: pathlib.Path, precision: str, calibration: np.ndarray | None) -> None:
    """Writes the weights, with 'float16' the kernels in half the space; see `onnx_format.write`."""
    export_weights(path, program.trained.variables, program.trained.facts, precision)


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """The network read again: a function of a batch of faces uint8 [N, S, S, C] that gives probabilities."""
    return Program(LoadedModel(path)).run


def versions() -> dict[str, Any]:
    """What the file was written with."""
    return {"safetensors": safetensors.__version__}


def annotate(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Adds the metadata to the file's own, beside the facts."""
    with safetensors.safe_open(path, "numpy") as file:
        own = file.metadata()
    content = arrays.save(arrays.load_file(path), own | {"export": json.dumps(metadata)})
    write_atomically(path, content)


def read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """What `annotate` wrote."""
    with safetensors.safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["export"])
