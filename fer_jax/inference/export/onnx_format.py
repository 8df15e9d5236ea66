"""Writes ONNX, for ONNX Runtime in all its languages and in the browser.

Images are [N, C, H, W] within the graph, as ONNX's convolutions require.
"""

import json
import math
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime import quantization
from onnxruntime.transformers import float16

from fer_jax import __version__
from fer_jax.inference.export.graph import BATCH, Constant, Expression, Shape, Window, convert
from fer_jax.inference.export.program import INPUT, Program
from fer_jax.io_utils import write_atomically

PRECISIONS = ("float32", "float16", "int8")
# Supported by runtimes since 2022.
OPSET, IR_VERSION = 17, 8

_QUANTIZED = ["Conv", "Gemm", "MaxPool", "GlobalAveragePool", "Add", "Mul"]
_KINDS = {"add": "Add", "divide": "Div", "multiply": "Mul", "sqrt": "Sqrt", "subtract": "Sub"}
_KINDS |= {"transpose": "Transpose"}
_AXES = (0, 2, 3, 1)  # positions of the image axes of JAX


def _to_nchw(shape: Shape) -> Shape:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _is_free(shape: Shape) -> bool:
    """Returns whether both layouts of a shape have the same element order."""
    return len(shape) != 4 or shape[1] * shape[2] == 1 or shape[3] == 1


class _Graph:
    """Collects nodes; handles are names of values."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._names: dict[tuple, str] = {}
        self._computed: dict[int, tuple[str, Expression]] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def array(self, value: Any) -> str:
        """Adds an initializer, shared if equal, or the nodes that compute an expression."""
        if isinstance(value, Expression):
            if id(value) not in self._computed:
                self._computed[id(value)] = self._compute(value), value
            return self._computed[id(value)][0]
        value = np.asarray(value, order="C")
        key = value.tobytes(), value.shape, value.dtype
        if key not in self._names:
            name = self._names[key] = f"constant_{len(self._names)}"
            self.initializers[name] = numpy_helper.from_array(value, name)
        return self._names[key]

    def _compute(self, value: Expression) -> str:
        if value.operation == "parameter":
            (name,) = value.operands
            proto = onnx.TensorProto(name=name, dims=value.shape, data_type=onnx.TensorProto.FLOAT)
            proto.data_location = onnx.TensorProto.EXTERNAL
            proto.external_data.add(key="location", value="weights")
            self.initializers[name] = proto
            return name
        operands = [one if isinstance(one, Expression) else np.float32(one) for one in value.operands]
        names = [self.array(one) for one in operands]
        if value.operation == "reshape":
            return self._reshape(names[0], value.shape)
        attributes = {"perm": value.axes} if value.operation == "transpose" else {}
        return self.node(_KINDS[value.operation], *names, **attributes)

    def constant(self, value: Constant) -> str:
        return self.array(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)

    def cast(self, x: str, dtype: np.dtype) -> str:
        return self.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def apply(self, name: str, *inputs: str) -> str:
        if name == "rsqrt":
            return self.node("Reciprocal", self.node("Sqrt", *inputs))
        return self.node("Sigmoid" if name == "logistic" else name.capitalize(), *inputs)

    def bound(self, name: str, x: str, limit: float) -> str:
        number = self.array(np.asarray(limit, np.float32))
        return self.node("Clip", x, number) if name == "max" else self.node("Clip", x, "", number)

    def reshape(self, x: str, old: Shape, new: Shape) -> str:
        if not _is_free(old):
            x = self.node("Transpose", x, perm=_AXES)
            old = (old[0], math.prod(old[1:]))
        if _is_free(new):
            return self._reshape(x, _to_nchw(new))
        return self.node("Transpose", self._reshape(x, new), perm=(0, 3, 1, 2))

    def _reshape(self, x: str, shape: Shape) -> str:
        return self.node("Reshape", x, self.array(np.array(shape, np.int64)))

    def broadcast(self, x: str, shape: Shape) -> str:
        sizes = [1 if size == BATCH else size for size in _to_nchw(shape)]
        return self.node("Expand", x, self.array(np.array(sizes, np.int64)))

    def reduce(self, name: str, x: str, shape: Shape, axes: Sequence[int]) -> str:
        is_image = len(shape) == 4
        if name == "mean" and is_image and tuple(axes) == (1, 2):
            return self.node("Flatten", self.node("GlobalAveragePool", x))
        axes = [_AXES[axis] if is_image else axis for axis in axes]
        if name == "mean":
            return self.node("ReduceMean", x, axes=axes, keepdims=0)
        return self.node("ReduceSum", x, self.array(np.array(axes, np.int64)), keepdims=0)

    def max_pool(self, x: str, window: Window) -> str:
        return self.node("MaxPool", x, **_attributes(window))

    def convolve(
        self, x: str, shape: Shape, kernel: Constant, bias: Constant, window: Window, groups: int
    ) -> str:
        weights = self.array(kernel.transpose(3, 2, 0, 1))
        return self.node("Conv", x, weights, self.array(bias), group=groups, **_attributes(window))

    def multiply(self, x: str, kernel: Constant, bias: Constant) -> str:
        return self.node("Gemm", x, self.array(kernel), self.array(bias))


def build(program: Program, parameters: Any | None = None) -> onnx.ModelProto:
    """Returns the model in float32, for batches of any size.

    Args:
      program: the network.
      parameters: its weights, by default `program.trained.variables`; or expressions, whose parameters become
        initializers with external data, for `add_external_initializers` of ONNX Runtime.
    """
    graph, shape = _Graph(), (BATCH, *program.face_shape)
    x = graph.node("Transpose", INPUT, perm=(0, 3, 1, 2))
    known = program.trained.variables if parameters is None else parameters
    out = convert(program.apply, known, shape, program.dtype, graph, x)
    graph.nodes.append(helper.make_node("Identity", [out], [program.output], program.output))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fer_jax",
            [_value(INPUT, program.dtype, shape)],
            [_value(program.output, np.float32, (BATCH, len(program.trained.metadata["emotions"])))],
            list(graph.initializers.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fer_jax",
        producer_version=__version__,
    )
    if parameters is None:
        onnx.checker.check_model(model, full_check=True)
    return model


def write(program: Program, path: pathlib.Path, precision: str, calibration: np.ndarray | None) -> None:
    """Writes the model.

    'float16' applies to weights and activations, with float32 output; 'int8' is a static quantization of
    weights (one scale per channel) and activations.
    """
    model = build(program)
    if precision == "int8":
        assert calibration is not None, "int8 needs faces"
        model = _quantize(model, program, calibration)
    elif precision == "float16":
        model = float16.convert_float_to_float16(model, keep_io_types=True)
    write_atomically(path, model.SerializeToString())


class _Faces(quantization.CalibrationDataReader):
    """Reads calibration inputs in batches of 32 faces."""

    def __init__(self, inputs: np.ndarray):
        self._parts = iter(np.array_split(inputs, -(-len(inputs) // 32)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        part = next(self._parts, None)
        return None if part is None else {INPUT: part}


def _quantize(model: onnx.ModelProto, program: Program, calibration: np.ndarray) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "int8.onnx")
        quantization.quantize_static(
            model,
            path,
            _Faces(program.prepare(calibration)),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if _is_enlarging(node)],
        )
        return onnx.load(path)


def _is_enlarging(node: onnx.NodeProto) -> bool:
    """Returns whether a node is a convolution of `transforms.enlarge`, along one axis."""
    sizes = [one.ints for one in node.attribute if one.name == "kernel_shape" and node.op_type == "Conv"]
    return bool(sizes) and sizes[0][0] > sizes[0][1] == 1


def load(path: pathlib.Path) -> Callable[[np.ndarray], Any]:
    """Loads the model in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {INPUT: batch})[0]


def versions() -> dict[str, Any]:
    tools = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return {"opset": OPSET, "ir": IR_VERSION} | tools


def annotate(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Writes the metadata to the model's properties, as JSON unless text."""
    model = onnx.load(path)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    helper.set_model_props(model, texts)
    model.doc_string = metadata["description"]
    write_atomically(path, model.SerializeToString())


def _value(name: str, dtype: Any, shape: Shape) -> onnx.ValueInfoProto:
    sizes = ["N" if size == BATCH else size for size in shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), sizes)


def _attributes(window: Window) -> dict[str, Sequence[int]]:
    before, after = zip(*window.pads, strict=True)
    return {"kernel_shape": window.size, "strides": window.strides, "pads": [*before, *after]}
