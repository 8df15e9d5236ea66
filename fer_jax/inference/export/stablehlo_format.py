"""StableHLO, for JAX without this project: `jax.export`'s own form.

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    probabilities = exported.call(faces)

computes on CPU, GPU and TPU, on a batch of any size; the weights are inside. The metadata are in a JSON
file beside it, of the same name with .json appended.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jaxlib
import numpy as np
from jax import export

from fer_jax.inference.export.program import Program
from fer_jax.io_utils import write_atomically

PRECISIONS = ("float32",)
PLATFORMS = ("cpu", "cuda", "tpu")


def write(program: Program, path: pathlib.Path, precision: str, calibration: np.ndarray | None) -> None:
    """Writes the model, in float32; see `onnx_format.write`.

    Its products are of float32 on a GPU and a TPU too, whose default is to round the factors.
    """
    (batch,) = export.symbolic_shape("N")
    faces = jax.ShapeDtypeStruct((batch, *program.trained.input_shape), program.dtype)
    with jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(lambda faces: program(faces)), platforms=PLATFORMS)(faces)
    write_atomically(path, exported.serialize())


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """The model compiled by JAX on its default device: a function of a batch."""
    exported = export.deserialize(bytearray(path.read_bytes()))
    call = jax.jit(exported.call)
    return lambda batch: np.asarray(call(batch))


def versions() -> dict[str, Any]:
    """What the file was written with."""
    return {
        "jaxlib": jaxlib.__version__,
        "calling_convention": export.maximum_supported_calling_convention_version,
        "platforms": list(PLATFORMS),
    }


def sidecar(path: pathlib.Path) -> pathlib.Path:
    """The file with the metadata."""
    return path.with_name(path.name + ".json")


def annotate(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Writes the metadata beside the model."""
    write_atomically(sidecar(path), (json.dumps(metadata, indent=2) + "\n").encode())


def read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """What `annotate` wrote."""
    return json.loads(sidecar(path).read_text())
