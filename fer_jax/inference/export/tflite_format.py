"""Writes TensorFlow Lite, for LiteRT on phones and small computers.

The network is written as TensorFlow operations and converted by TensorFlow. The metadata is in a zip archive
appended to the model, as TensorFlow Lite's tools expect: labels.txt and metadata.json. Runtimes ignore it;
`unzip -p model.tflite labels.txt` reads it.
"""

import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from fer_jax.inference.export.graph import BATCH, Shape, Window, convert
from fer_jax.inference.export.program import INPUT, Program
from fer_jax.io_utils import write_atomically
from fer_jax.models.ops.convolution import padding_of

PRECISIONS = ("float32", "float16", "int8")
LABELS, METADATA = "labels.txt", "metadata.json"

_NAMES = {"logistic": "sigmoid", "neg": "negative", "sub": "subtract", "mul": "multiply", "div": "divide"}
_NAMES |= {"max": "maximum", "min": "minimum"}


class _Graph:
    """Calls TensorFlow; handles are tensors."""

    def __init__(self, tf: Any):
        self.tf = tf

    def constant(self, value: Any) -> Any:
        return self.tf.constant(value)

    def cast(self, x: Any, dtype: np.dtype) -> Any:
        return self.tf.cast(x, np.dtype(dtype).name)

    def apply(self, name: str, *inputs: Any) -> Any:
        module = self.tf.nn if name in ("elu", "relu", "softmax") else self.tf.math
        return getattr(module, _NAMES.get(name, name))(*inputs)

    def bound(self, name: str, x: Any, limit: float) -> Any:
        return self.apply(name, x, self.tf.constant(limit, x.dtype))

    def reshape(self, x: Any, old: Shape, new: Shape) -> Any:
        return self.tf.reshape(x, new)

    def broadcast(self, x: Any, shape: Shape) -> Any:
        return self.tf.broadcast_to(x, [self.tf.shape(x)[0] if size == BATCH else size for size in shape])

    def reduce(self, name: str, x: Any, shape: Shape, axes: Sequence[int]) -> Any:
        return getattr(self.tf, f"reduce_{name}")(x, axes)

    def max_pool(self, x: Any, window: Window) -> Any:
        if any(map(any, window.pads)):
            # Mirrored pixels are in the same window as their originals.
            x = self.tf.pad(x, [(0, 0), *window.pads, (0, 0)], "SYMMETRIC")
        return self.tf.nn.max_pool2d(x, window.size, window.strides, "VALID")

    def convolve(self, x: Any, shape: Shape, kernel: Any, bias: Any, window: Window, groups: int) -> Any:
        (size, _), (stride, _), padding = window.size, window.strides, "SAME"
        if window.pads != tuple(padding_of(n, size, stride, "same") for n in shape[1:3]):
            x, padding = self.tf.pad(x, [(0, 0), *window.pads, (0, 0)]), "VALID"
        if groups == 1:
            y = self.tf.nn.conv2d(x, kernel, stride, padding)
        else:
            y = self.tf.nn.depthwise_conv2d(x, kernel.swapaxes(2, 3), (1, stride, stride, 1), padding)
        return self.tf.nn.bias_add(y, bias)

    def multiply(self, x: Any, kernel: Any, bias: Any) -> Any:
        return self.tf.nn.bias_add(self.tf.matmul(x, kernel), bias)


def _tensorflow() -> Any:
    """Imports TensorFlow (slow), and hides the GPU from it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def write(program: Program, path: pathlib.Path, precision: str, calibration: np.ndarray | None) -> None:
    """Writes the model.

    'float16' applies to stored weights; 'int8' is a full-integer quantization of weights (one scale per
    channel) and activations.
    """
    tf = _tensorflow()
    shape = BATCH, *program.face_shape
    spec = tf.TensorSpec((None, *shape[1:]), np.dtype(program.dtype).name, INPUT)

    @tf.function(input_signature=[spec], autograph=False)
    def serve(faces):
        parameters = program.trained.variables
        return {program.output: convert(program.apply, parameters, shape, program.dtype, _Graph(tf), faces)}

    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        module.serve = serve
        tf.saved_model.save(module, folder, signatures={"serving_default": serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            assert calibration is not None, "int8 needs faces"
            inputs = program.prepare(calibration)
            converter.representative_dataset = lambda: ({INPUT: one[None]} for one in inputs)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        write_atomically(path, converter.convert())


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """Loads the model in LiteRT on the CPU."""
    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    size = None

    def run(batch: np.ndarray) -> np.ndarray:
        nonlocal size
        if len(batch) != size:
            interpreter.resize_tensor_input(given["index"], batch.shape)
            interpreter.allocate_tensors()
            size = len(batch)
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(wanted["index"])

    return run


def versions() -> dict[str, Any]:
    return {"tensorflow": _tensorflow().__version__, "litert": version("ai-edge-litert")}


def annotate(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LABELS, "\n".join(metadata["labels"]) + "\n")
        archive.writestr(METADATA, json.dumps(metadata, indent=2) + "\n")
