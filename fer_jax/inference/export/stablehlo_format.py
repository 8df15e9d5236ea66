"""Writes StableHLO, for JAX without fer_jax, serialized by `jax.export`.

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    probabilities = exported.call(faces)

runs on CPU, GPU, and TPU, for batches of any size; the file includes the weights. The metadata is in
FILE.json.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jaxlib
import numpy as np
from jax import export

from fer_jax.inference.export.program import Program
from fer_jax.io_utils import write_atomically, write_json

PRECISIONS = ("float32",)
PLATFORMS = ("cpu", "cuda", "tpu")


def write(program: Program, path: pathlib.Path, precision: str, calibration: np.ndarray | None) -> None:
    """Writes the model; products have full float32 precision, which is not the default on GPU and TPU."""
    (batch,) = export.symbolic_shape("N")
    faces = jax.ShapeDtypeStruct((batch, *program.face_shape), program.dtype)
    with jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(lambda faces: program(faces)), platforms=PLATFORMS)(faces)
    write_atomically(path, bytes(exported.serialize()))


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """Loads the model in JAX for its default device."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda batch: np.asarray(call(batch))


def versions() -> dict[str, Any]:
    convention = export.maximum_supported_calling_convention_version
    return {"jaxlib": jaxlib.__version__, "calling_convention": convention, "platforms": list(PLATFORMS)}


def annotate(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    write_json(path.with_name(f"{path.name}.json"), metadata, sort_keys=False)
