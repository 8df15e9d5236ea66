"""Writes an export, verifies it on faces, and only then moves it to where it was wanted."""

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
    """Imports the module of a format, one of `FORMATS`; each needs libraries of its own.

    Raises:
      ValueError: if there is no such format, or its libraries are not installed.
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
    """Writes an export, compares it with the network, and keeps it with the result in its metadata.

    Args:
      program: the network.
      name: of the format, one of `FORMATS`.
      out: path of the file.
      precision: one of the format's.
      faces: to compare on, and to calibrate int8 with.

    Returns:
      The metadata, whose 'verified' is the result of `check.compare`.

    Raises:
      ValueError: if the format lacks the precision, needs training faces that are not given, or stores only
        weights although something was to be left out.
      MismatchError: if the export differs from the network in float32.
      OSError: if it cannot be written.
    """
    out, form = pathlib.Path(out), open_format(name)
    if precision not in form.PRECISIONS:
        raise ValueError(f"{name} does not support {precision}; it supports: {', '.join(form.PRECISIONS)}")
    if precision == "int8" and faces.calibration is None:
        raise ValueError(
            "int8 is calibrated with training faces: give --data, the dataset of the weights' training"
        )
    if name == "safetensors" and "outside" in (program.preprocessing, program.softmax):
        raise ValueError(
            "safetensors stores only weights, with nothing outside: drop --preprocessing and --softmax"
        )
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
