"""Writes an export, tries it on faces, and only then puts it where it was wanted."""

import os
import pathlib
import tempfile
from types import ModuleType
from typing import Any

from fer_jax.inference.export import check, metadata
from fer_jax.inference.export.program import Program

FORMATS = ("onnx", "tflite", "stablehlo", "safetensors")


def open_format(name: str) -> ModuleType:
    """The module of a format, one of `FORMATS`; imported late, for each needs libraries of its own.

    Raises:
      ValueError: these are not installed.
    """
    try:
        match name:
            case "onnx":
                from fer_jax.inference.export import onnx_format as module
            case "tflite":
                from fer_jax.inference.export import tflite_format as module
            case "stablehlo":
                from fer_jax.inference.export import stablehlo_format as module
            case "safetensors":
                from fer_jax.inference.export import safetensors_format as module
            case _:
                raise ValueError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name} needs {error.name}, which is not installed: pip install 'fer_jax[export]'"
        ) from error
    return module


def export(
    program: Program, name: str, out: os.PathLike | str, precision: str, faces: check.SampleFaces
) -> dict[str, Any]:
    """Writes an export, runs it beside the network, and keeps it with what was found in its metadata.

    Args:
      program: what to export.
      name: of the format, one of `FORMATS`.
      out: the file.
      precision: one that the format has.
      faces: to try it on, and to calibrate int8 with.

    Returns:
      The metadata, whose 'verified' is what `check.compare` found.

    Raises:
      ValueError: the format lacks the precision, needs faces of the training that are not there, or holds
        weights alone and something was to be left out of it.
      MismatchError: in float32, it is not the network.
      OSError: it cannot be written.
    """
    out, form = pathlib.Path(out), open_format(name)
    _require(program, name, precision, form.PRECISIONS, faces)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        path = pathlib.Path(folder, out.name)
        form.write(program, path, precision, faces.calibration)
        found = check.compare(program, form.load(path), faces)
        if precision == "float32":
            check.require_same(found)
        facts = metadata.describe(program, precision, form.versions())
        facts["verified"] = found
        form.annotate(path, facts)
        for file in pathlib.Path(folder).iterdir():
            os.replace(file, out.with_name(file.name))
    return facts


def _require(
    program: Program, name: str, precision: str, precisions: tuple[str, ...], faces: check.SampleFaces
) -> None:
    if precision not in precisions:
        raise ValueError(f"{name} is not written in {precision}; it is in: {', '.join(precisions)}")
    if precision == "int8" and faces.calibration is None:
        raise ValueError(
            "int8 is calibrated with faces of the training: give --data, the dataset that the weights learnt "
            "from"
        )
    if name == "safetensors" and "outside" in (program.preprocessing, program.softmax):
        raise ValueError(
            "safetensors holds weights alone, so nothing can be left outside: leave --preprocessing and "
            "--softmax"
        )
