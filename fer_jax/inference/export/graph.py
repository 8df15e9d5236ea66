"""Converts a JAX function to a graph of a few operations, written by a format's `Writer`.

The networks need about twenty primitives. Scales and shifts of the output of a convolution or a matrix
product (bias, BatchNorm, temperature) are folded into its weights. Constants are arrays, which are computed
here, or `Expression`s of parameters, which the runtime computes from their values.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.extend import core

from fer_jax.inference.export import UnsupportedError

Handle = Any  # a value in a writer's graph
Shape = tuple[int, ...]  # of a value; -1 is the batch, always the first axis

BATCH = -1
UNARY = ("exp", "logistic", "neg", "rsqrt", "sqrt", "tanh")
BINARY = ("add", "sub", "mul", "div", "max", "min")


class Expression(np.lib.mixins.NDArrayOperatorsMixin):
    """A constant computed from parameters with unknown values.

    Attributes:
      operation: 'parameter', 'reshape', 'transpose', or the name of a NumPy ufunc.
      operands: numbers, arrays, and expressions; for a parameter, its name.
      shape: shape of the constant, which is float32.
      axes: order of axes for a transpose.
    """

    def __init__(self, operation: str, operands: tuple, shape: Shape, axes: Shape = ()):
        self.operation, self.operands, self.shape, self.axes = operation, operands, tuple(shape), axes

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def reshape(self, *shape: Any) -> "Expression":
        shape = np.empty(self.shape, bool).reshape(*shape).shape
        return self if shape == self.shape else Expression("reshape", (self,), shape)

    def transpose(self, *axes: int) -> "Expression":
        return Expression("transpose", (self,), tuple(self.shape[axis] for axis in axes), axes)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            return NotImplemented
        shape = np.broadcast_shapes(*(np.shape(one) for one in operands))
        return Expression(ufunc.__name__, operands, shape)


Constant = np.ndarray | Expression
# Primitives on expressions; on arrays, JAX computes them.
_NUMPY = {
    "add": np.add,
    "convert_element_type": lambda x: x,
    "div": np.divide,
    "mul": np.multiply,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sub": np.subtract,
}


class Window(NamedTuple):
    """Size, strides, and (before, after) padding of a window over the two spatial axes."""

    size: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], ...]


class Writer(Protocol):
    """Writes operations in a format. Shapes and axes are as in JAX, with images [N, H, W, C]."""

    def constant(self, value: Constant) -> Handle:
        """Writes an array."""

    def cast(self, x: Handle, dtype: np.dtype) -> Handle:
        """Writes a conversion to another dtype."""

    def apply(self, name: str, *inputs: Handle) -> Handle:
        """Writes one of `UNARY`, 'elu', 'relu', 'softmax' (last axis), or of `BINARY` (with broadcasting)."""

    def bound(self, name: str, x: Handle, limit: float) -> Handle:
        """Writes the 'max' or 'min' of `x` and a number."""

    def reshape(self, x: Handle, old: Shape, new: Shape) -> Handle:
        """Writes a reshape with the element order of JAX."""

    def broadcast(self, x: Handle, shape: Shape) -> Handle:
        """Writes a broadcast of axes of size 1."""

    def reduce(self, name: str, x: Handle, shape: Shape, axes: Sequence[int]) -> Handle:
        """Writes the 'sum' or 'mean' of `x` over axes, which are dropped."""

    def max_pool(self, x: Handle, window: Window) -> Handle:
        """Writes a max pooling with padding by -inf."""

    def convolve(
        self, x: Handle, shape: Shape, kernel: Constant, bias: Constant, window: Window, groups: int
    ) -> Handle:
        """Writes the convolution of `x` with a kernel [h, w, C / groups, D], plus a bias [D]."""

    def multiply(self, x: Handle, kernel: Constant, bias: Constant) -> Handle:
        """Writes the product of [N, C] and a matrix [C, D], plus a bias [D]."""


@dataclasses.dataclass
class Tensor:
    """A value that depends on the input.

    Attributes:
      make: writes the value; called once.
      shape: shape as written; 1 along axes that are broadcast.
      fold: returns the value after an operation of `BINARY` with a constant, or None if it cannot be folded.
    """

    make: Callable[[], Handle]
    shape: Shape
    fold: Callable[[str, Constant], "Tensor | None"] = lambda name, by: None

    @functools.cached_property
    def handle(self) -> Handle:
        return self.make()


def linear(
    write: Callable[[Constant, Constant], Handle], shape: Shape, kernel: Constant, bias: Constant
) -> Tensor:
    """Returns a convolution or matrix product that folds scales and shifts into its weights.

    Args:
      write: writes the operation with a kernel [..., D] and a bias [D].
      shape: shape of the output, [..., D].
      kernel: the kernel.
      bias: the bias.
    """

    def fold(name, by):
        if by.size != 1 and not by.size == by.shape[-1] == shape[-1]:
            return None
        by = by.reshape(-1)
        match name:
            case "add" | "sub":
                return linear(write, shape, kernel, bias + by if name == "add" else bias - by)
            case "mul" | "div":
                by = by if name == "mul" else 1 / by
                return linear(write, shape, kernel * by, bias * by)

    return Tensor(lambda: write(kernel, bias), shape, fold)


Value = Any  # Constant | Tensor


def convert(
    function: Callable, parameters: Any, shape: Shape, dtype: Any, writer: Writer, x: Handle
) -> Handle:
    """Writes a function of parameters and an array.

    Args:
      function: function of the parameters and the array.
      parameters: tree of arrays or expressions, float32.
      shape: shape of the input; the first axis is the batch, of any size.
      dtype: dtype of the input.
      writer: writer of the graph.
      x: handle of the input.

    Returns:
      The handle of the output.

    Raises:
      UnsupportedError: the function needs an unsupported operation.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    kinds = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32), parameters)
    closed = jax.make_jaxpr(function)(kinds, jax.ShapeDtypeStruct((batch, *shape[1:]), dtype))
    walker = _Walker(writer)
    known = jax.tree.leaves(parameters)
    (out,) = walker.walk(closed, [*known, Tensor(lambda: x, (BATCH, *shape[1:]))])
    return walker.full(out, _shape(closed.out_avals[0]))


class _Walker:
    """Evaluates a jaxpr with a writer."""

    def __init__(self, writer: Writer):
        self.writer = writer

    def walk(self, closed: core.ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        """Returns the outputs of a jaxpr."""
        jaxpr = closed.jaxpr
        values = dict(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))
        literal = core.Literal
        atoms = [atom for eqn in jaxpr.eqns for atom in eqn.invars] + list(jaxpr.outvars)
        uses = collections.Counter(atom for atom in atoms if not isinstance(atom, literal))

        def read(atom):
            return np.asarray(atom.val) if isinstance(atom, literal) else values[atom]

        for eqn in jaxpr.eqns:
            operands = [read(atom) for atom in eqn.invars]
            alone = all(uses[atom] == 1 for atom in eqn.invars if not isinstance(atom, literal))
            values |= dict(zip(eqn.outvars, self._apply(eqn, operands, alone), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def full(self, value: Value, shape: Shape) -> Handle:
        """Writes a value with its full shape."""
        if isinstance(value, np.ndarray):
            return self.writer.constant(np.broadcast_to(value, shape))
        return value.handle if value.shape == shape else self.writer.broadcast(value.handle, shape)

    def _handle(self, value: Value) -> Handle:
        return self.writer.constant(value) if isinstance(value, Constant) else value.handle

    def _apply(self, eqn: Any, operands: list[Value], alone: bool) -> list[Value]:
        name = eqn.primitive.name
        inner = [value for value in eqn.params.values() if isinstance(value, core.ClosedJaxpr)]
        if inner:
            called = eqn.params.get("name")
            if called in ("elu", "softmax") and np.all(np.asarray(operands[1:]) == 1):
                return [self._unary(called, operands[0])]
            return self.walk(inner[0], [_settled(value) for value in operands])
        shape = _shape(eqn.outvars[0].aval)
        if name == "broadcast_in_dim":
            return [self._broadcast(operands[0], shape, eqn.params["broadcast_dimensions"])]
        if any(isinstance(value, Expression) for value in operands) and all(
            isinstance(value, Constant) for value in operands
        ):
            return [self._compute(name, operands, shape)]
        if all(isinstance(value, np.ndarray) for value in operands):
            result = eqn.primitive.bind(*operands, **eqn.params)
            return [np.asarray(one) for one in (result if eqn.primitive.multiple_results else [result])]
        if name in UNARY:
            return [self._unary(name, operands[0])]
        if name in BINARY:
            return [self._binary(name, operands, alone)]
        handlers = {
            "convert_element_type": self._cast,
            "conv_general_dilated": self._convolve,
            "dot_general": self._multiply,
            "reduce_sum": self._sum,
            "reduce_window_max": self._max_pool,
            "reshape": self._reshape,
        }
        if name not in handlers:
            raise UnsupportedError(f"the network needs the operation {name}, which exports do not support")
        return [handlers[name](eqn, operands, shape)]

    def _compute(self, name: str, operands: list[Constant], shape: Shape) -> Constant:
        if name == "reshape":
            return operands[0].reshape(shape)
        if name not in _NUMPY:
            raise UnsupportedError(f"exports do not support the operation {name} of a network's weights")
        return _NUMPY[name](*operands)

    def _unary(self, name: str, x: Tensor) -> Tensor:
        return Tensor(lambda: self.writer.apply(name, x.handle), x.shape)

    def _binary(self, name: str, operands: list[Value], alone: bool) -> Tensor:
        swapped = isinstance(operands[0], Constant) and name in ("add", "mul", "max", "min")
        x, y = reversed(operands) if swapped else operands
        if isinstance(y, Constant) and alone and (folded := x.fold(name, y)):
            return folded
        if isinstance(y, np.ndarray):
            if name == "max" and y.size == 1 and y == 0:
                return self._unary("relu", x)
            if name in ("max", "min") and y.size == 1:
                return Tensor(lambda: self.writer.bound(name, x.handle, float(y)), x.shape)
        shape = _broadcast_shapes(x.shape, y.shape)
        return Tensor(lambda: self.writer.apply(name, self._handle(x), self._handle(y)), shape)

    def _broadcast(self, x: Value, shape: Shape, dimensions: Sequence[int]) -> Value:
        """Adds axes of size 1; the following operations broadcast them."""
        new = [1] * len(shape)
        for axis, size in zip(dimensions, x.shape, strict=True):
            new[axis] = size
        if isinstance(x, Constant):
            return x.reshape(new)
        if tuple(new) == x.shape:
            return x
        return Tensor(lambda: self.writer.reshape(x.handle, x.shape, tuple(new)), tuple(new))

    def _cast(self, eqn: Any, operands: list[Value], shape: Shape) -> Tensor:
        (x,) = operands
        return Tensor(lambda: self.writer.cast(x.handle, eqn.params["new_dtype"]), x.shape)

    def _convolve(self, eqn: Any, operands: list[Value], shape: Shape) -> Tensor:
        x, kernel = operands
        params, old = eqn.params, _shape(eqn.invars[0].aval)
        layout, groups = params["dimension_numbers"], params["feature_group_count"]
        expected = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)
        dilations = {*params["lhs_dilation"], *params["rhs_dilation"], params["batch_group_count"]}
        if tuple(layout) != expected or dilations != {1} or not isinstance(kernel, Constant):
            raise UnsupportedError("the network has a kind of convolution that exports do not support")
        window = Window(
            (kernel.shape[0], kernel.shape[1]), params["window_strides"], tuple(params["padding"])
        )

        def write(kernel, bias):
            return self.writer.convolve(self.full(x, old), old, kernel, bias, window, groups)

        return linear(write, shape, kernel, np.zeros(shape[-1], np.float32))

    def _multiply(self, eqn: Any, operands: list[Value], shape: Shape) -> Tensor:
        x, kernel = operands
        contracted, batched = eqn.params["dimension_numbers"]
        plain = [list(axes) for axes in (*contracted, *batched)] == [[1], [0], [], []]
        if not plain or not isinstance(kernel, Constant):
            raise UnsupportedError("the network has a kind of matrix product that exports do not support")
        old = _shape(eqn.invars[0].aval)

        def write(kernel, bias):
            return self.writer.multiply(self.full(x, old), kernel, bias)

        return linear(write, shape, kernel, np.zeros(shape[-1], np.float32))

    def _sum(self, eqn: Any, operands: list[Value], shape: Shape) -> Tensor:
        (x,), axes = operands, eqn.params["axes"]
        old = _shape(eqn.invars[0].aval)
        count = np.prod([old[axis] for axis in axes])

        def reduce(name):
            return Tensor(lambda: self.writer.reduce(name, self.full(x, old), old, axes), shape)

        def fold(name, by):
            return reduce("mean") if name == "div" and isinstance(by, np.ndarray) and by == count else None

        return dataclasses.replace(reduce("sum"), fold=fold)

    def _max_pool(self, eqn: Any, operands: list[Value], shape: Shape) -> Tensor:
        (x,), old = operands, _shape(eqn.invars[0].aval)
        names = ("window_dimensions", "window_strides", "padding")
        window = Window(*(tuple(eqn.params[name][1:3]) for name in names))
        return Tensor(lambda: self.writer.max_pool(self.full(x, old), window), shape)

    def _reshape(self, eqn: Any, operands: list[Value], shape: Shape) -> Tensor:
        (x,), old = operands, _shape(eqn.invars[0].aval)
        return Tensor(lambda: self.writer.reshape(self.full(x, old), old, shape), shape)


def _settled(value: Value) -> Value:
    """Returns a value without folding, because a called function may use it more than once."""
    return value if isinstance(value, Constant) else Tensor(lambda: value.handle, value.shape)


def _shape(aval: Any) -> Shape:
    return tuple(size if isinstance(size, int) else BATCH for size in aval.shape)


def _broadcast_shapes(x: Shape, y: Shape) -> Shape:
    if len(x) != len(y):
        return max(x, y, key=len)  # the other is a scalar
    return tuple(b if a == 1 else a for a, b in zip(x, y, strict=True))
