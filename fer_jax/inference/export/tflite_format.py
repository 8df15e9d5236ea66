"""TensorFlow Lite, for LiteRT on phones and small computers.

The network is written as TensorFlow's operations, which TensorFlow's own converter turns into a model. The
metadata are files in a zip archive behind the model, where TensorFlow Lite's tools keep those of a model:
labels.txt and metadata.json; runtimes do not see it, `unzip -p model.tflite labels.txt` does.
"""

import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from fer_jax.inference.export.graph import BATCH, Pads, Shape, convert
from fer_jax.inference.export.program import INPUT, Program
from fer_jax.io_utils import write_atomically
from fer_jax.models.ops.convolution import padding_of

PRECISIONS = ("float32", "float16", "int8")
LABELS, METADATA = "labels.txt", "metadata.json"

_UNARY = {"elu": "nn.elu", "logistic": "sigmoid", "neg": "negative", "softmax": "nn.softmax"}
_BINARY = {"sub": "subtract", "mul": "multiply", "div": "divide", "max": "maximum", "min": "minimum"}


class _Graph:
    """Calls TensorFlow; a handle is a tensor."""

    def __init__(self, tf: Any):
        self.tf = tf

    def _named(self, name: str) -> Callable:
        found = self.tf
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def constant(self, value: np.ndarray) -> Any:
        return self.tf.constant(value)

    def cast(self, x: Any, dtype: np.dtype) -> Any:
        return self.tf.cast(x, np.dtype(dtype).name)

    def unary(self, name: str, x: Any) -> Any:
        return self._named(_UNARY.get(name, f"math.{name}"))(x)

    def binary(self, name: str, x: Any, y: Any) -> Any:
        return self._named(_BINARY.get(name, name))(x, y)

    def bound(self, name: str, x: Any, limit: float) -> Any:
        if name == "max" and limit == 0:
            return self.tf.nn.relu(x)
        return self.binary(name, x, self.tf.constant(limit, x.dtype))

    def reshape(self, x: Any, old: Shape, new: Shape) -> Any:
        return self.tf.reshape(x, new)

    def broadcast(self, x: Any, shape: Shape) -> Any:
        return self.tf.broadcast_to(x, [self.tf.shape(x)[0] if size == BATCH else size for size in shape])

    def reduce(self, name: str, x: Any, shape: Shape, axes: Sequence[int]) -> Any:
        return self._named(f"reduce_{name}")(x, axes)

    def max_pool(self, x: Any, window: Sequence[int], strides: Sequence[int], pads: Pads) -> Any:
        if any(map(any, pads)):
            # Pixels mirrored at the edge lie in the same window as those they mirror.
            x = self.tf.pad(x, [(0, 0), *pads, (0, 0)], "SYMMETRIC")
        return self.tf.nn.max_pool2d(x, window, strides, "VALID")

    def convolve(
        self,
        x: Any,
        shape: Shape,
        kernel: np.ndarray,
        bias: np.ndarray,
        strides: Sequence[int],
        pads: Pads,
        groups: int,
    ) -> Any:
        size, (stride, _) = kernel.shape[0], strides
        padding = "SAME"
        if any(pad != padding_of(n, size, stride, "same") for n, pad in zip(shape[1:3], pads, strict=True)):
            x, padding = self.tf.pad(x, [(0, 0), *pads, (0, 0)]), "VALID"
        if groups == 1:
            y = self.tf.nn.conv2d(x, kernel, stride, padding)
        else:
            y = self.tf.nn.depthwise_conv2d(x, kernel.swapaxes(2, 3), (1, stride, stride, 1), padding)
        return self.tf.nn.bias_add(y, bias)

    def multiply(self, x: Any, kernel: np.ndarray, bias: np.ndarray) -> Any:
        return self.tf.nn.bias_add(self.tf.matmul(x, kernel), bias)


def _tensorflow() -> Any:
    """TensorFlow, kept off the GPU; imported late, for it takes seconds."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def write(program: Program, path: pathlib.Path, precision: str, calibration: np.ndarray | None) -> None:
    """Writes the model.

    Args:
      program: the network.
      path: the file.
      precision: 'float32'; 'float16', of the stored weights; or 'int8', by full-integer quantisation after
        the training, of weights (a scale for each channel) and activations.
      calibration: faces uint8 [N, S, S, C] that show int8 how large the activations become.
    """
    tf = _tensorflow()
    shape = BATCH, *program.trained.input_shape
    spec = tf.TensorSpec((None, *shape[1:]), np.dtype(program.dtype).name, INPUT)

    @tf.function(input_signature=[spec], autograph=False)
    def serve(faces):
        return {program.output: convert(program, shape, program.dtype, _Graph(tf), faces)}

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
            converter.representative_dataset = lambda: _one_by_one(program.prepare(calibration))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        write_atomically(path, converter.convert())


def _one_by_one(inputs: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    return ({INPUT: inputs[i : i + 1]} for i in range(len(inputs)))


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """The model in LiteRT on the CPU: a function of a batch."""
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
    """What the file was written with."""
    return {"tensorflow": _tensorflow().__version__, "litert": version("ai-edge-litert")}


def annotate(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Appends the archive with the metadata."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LABELS, "\n".join(metadata["labels"]) + "\n")
        archive.writestr(METADATA, json.dumps(metadata, indent=2) + "\n")


def read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """What `annotate` wrote."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(METADATA))
