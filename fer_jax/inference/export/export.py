"""Writes and verifies exports."""

import importlib
import os
import pathlib
import tempfile
from types import ModuleType
from typing import Any

from fer_jax.inference.export import check, metadata
from fer_jax.inference.export.program import Program
from fer_jax.io_utils import move_into_place

FORMATS = ("onnx", "tflite", "stablehlo", "safetensors")


def open_format(name: str) -> ModuleType:
    """Imports the module of a format, one of `FORMATS`.

    Raises:
      ValueError: the format is unknown, or its libraries are not installed.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}")
    try:
        return importlib.import_module(f"{__package__}.{name}_format")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name} needs {error.name}, which is not installed: pip install 'fer_jax[export]'"
        ) from error


def export(
    program: Program, name: str, out: os.PathLike | str, precision: str, faces: check.SampleFaces
) -> dict[str, Any]:
    """Writes an export if it agrees with the network, with the comparison in its metadata.

    Args:
      program: the network.
      name: format, one of `FORMATS`.
      out: path of the file.
      precision: one of the format's PRECISIONS.
      faces: faces for verification and int8 calibration.

    Returns:
      The metadata, with the result of `check.compare` as 'verified'.

    Raises:
      ValueError: the format does not support the precision or the program, or needs training faces.
      MismatchError: a float32 export differs from the network.
      OSError: the file cannot be written.
    """
    out, form = pathlib.Path(out), open_format(name)
    if precision not in form.PRECISIONS:
        raise ValueError(f"{name} does not support {precision}; it supports: {', '.join(form.PRECISIONS)}")
    if precision == "int8" and faces.calibration is None:
        raise ValueError("int8 is calibrated on training faces: give the training dataset with --data")
    if name == "safetensors" and "outside" in (program.preprocessing, program.softmax):
        raise ValueError("safetensors stores only weights: drop --preprocessing and --softmax")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        path = pathlib.Path(folder, out.name)
        form.write(program, path, precision, faces.calibration)
        found = check.compare(program, form.load(path), faces)
        if precision == "float32":
            check.require_same(found)
        described = metadata.describe(program, precision, form.versions()) | {"verified": found}
        form.annotate(path, described)
        for file in pathlib.Path(folder).iterdir():
            move_into_place(file, out.with_name(file.name))
    return described
