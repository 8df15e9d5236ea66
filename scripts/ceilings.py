"""What a program asks of a device, and what the device does at best.

XLA's own cost analysis will not do: on a GPU it leaves out what cuDNN and cuBLAS compute, most of a training
step, and so on a CPU what oneDNN does.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fer_jax import platform

CALLS, ROUNDS = 10, 3
# Large enough to fill the device, by platform: the side of the matrices, MiB of the block that is copied.
SIZES = {"cpu": (2048, 64)}
_SIZES = (8192, 1024)  # of all others


# -------------------- arithmetic --------------------


def operations(jaxpr: core.Jaxpr) -> int:
    """Floating-point operations of the matrix products and convolutions in a program, two a multiply-add.

    Products with the zeros of paddings and dilations are not counted, nor anything element by element. A loop
    of unknown length counts once, and of the branches of a condition the largest.

    Args:
      jaxpr: such as `jax.make_jaxpr(function)(*arguments).jaxpr`.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            ((contracted, _), _) = params["dimension_numbers"]
            sides = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(sides[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            total += 2 * _multiply_adds(equation)
        elif name == "cond":
            total += max(operations(branch.jaxpr) for branch in params["branches"])
        else:
            parts = [getattr(part, "jaxpr", part) for part in jax.tree.leaves(list(params.values()))]
            inner = sum(operations(part) for part in parts if isinstance(part, core.Jaxpr))
            total += inner * params.get("length", 1)  # of a scan
    return total


def _multiply_adds(convolution: core.JaxprEqn) -> int:
    params = convolution.params
    left, right, out = (
        [variable.aval.shape[axis] for axis in spec]
        for variable, spec in zip(
            (*convolution.invars, *convolution.outvars), params["dimension_numbers"], strict=True
        )
    )  # as (batch, features, *space), the kernel as (features out, features in, *space)
    taps = 1
    axes = zip(
        left[2:],
        right[2:],
        out[2:],
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    )
    for size, kernel, places, stride, (before, _), apart, kernel_apart in axes:
        reached = stride * np.arange(places)[:, None] + kernel_apart * np.arange(kernel) - before
        taps *= int(((reached >= 0) & (reached % apart == 0) & (reached // apart < size)).sum())
    return out[0] * out[1] * right[1] * taps


# -------------------- memory --------------------

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (.+?) ([\w-]+)\((.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_ARRAY = re.compile(r"([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all opt-barrier partition-id replica-id".split()
)
# Whose computations are made of instructions that run one by one; a fusion's is one kernel.
_CALLERS = ("call", "while", "conditional")
_CALLS = re.compile(r"(?:to_apply|body|condition|(?:true|false)_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_FUSED = re.compile(r"calls=%?([\w.-]+)")
_SCOPE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a compiled program.

    Attributes:
      opcode: such as "fusion" or "custom-call".
      bytes: of its result.
      operands: names of what it reads, and possibly numbers.
      rest: of the line, after the opening parenthesis.
    """

    opcode: str
    bytes: int
    operands: frozenset[str]
    rest: str

    @property
    def is_caller(self) -> bool:
        """Whether it does nothing itself but runs other instructions."""
        return self.opcode in _CALLERS


class Program:
    """A compiled program, read from its text.

    Attributes:
      computations: instructions by name, by computation.
      entry: the name of the computation that runs.
      kernels: names of instructions by those of the kernels that XLA makes of them.
    """

    def __init__(self, text: str):
        """Reads `jax.stages.Compiled.as_text()`.

        Raises:
          ValueError: the text has no entry computation.
        """
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry, instructions = None, {}
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                instructions = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                name, shape, opcode, rest = found.groups()
                operands = frozenset(re.findall(r"([\w.-]+)(?=,|$)", rest.partition(")")[0]))
                instructions[name] = Instruction(opcode, _bytes(shape, opcode), operands, rest)
        if self.entry is None:
            raise ValueError("no ENTRY in the text of the compiled program: XLA writes it in another way now")
        names = (name for instructions in self.computations.values() for name in instructions)
        self.kernels = {re.sub(r"\W", "_", name): name for name in names}

    def traffic(self) -> int:
        """Bytes that the kernels read and write: each its arguments once, and its results.

        What a cache keeps from one kernel to the next is counted, what a kernel reads twice is not.
        """
        return self._traffic(self.entry)

    def find(self, name: str) -> Instruction | None:
        """An instruction of any computation by its name or its kernel's, None where there is none."""
        name = self.kernels.get(name, name)
        return next((group[name] for group in self.computations.values() if name in group), None)

    def scope(self, name: str) -> str:
        """Where in the traced functions an instruction, or the last of a fusion's, is from; "" if unknown."""
        instruction = self.find(name)
        if not instruction:
            return ""
        found, fused = _SCOPE.search(instruction.rest), _FUSED.search(instruction.rest)
        if found or not fused:
            return found[1] if found else ""
        parts = self.computations.get(fused[1], {}).values()
        scopes = [found[1] for part in parts if (found := _SCOPE.search(part.rest))]
        return scopes[-1] if scopes else ""

    def _traffic(self, computation: str) -> int:
        total, instructions = 0, self.computations[computation]
        for one in instructions.values():
            if one.opcode in _FREE or one.opcode.endswith("-done"):
                continue
            if one.opcode.endswith("-start"):  # its result has the arguments in it
                total += one.bytes
            elif one.is_caller:
                groups, trips = _BRANCHES.findall(one.rest), _TRIPS.search(one.rest)
                called = _CALLS.findall(one.rest)
                called += [name.strip(" %") for group in groups for name in group.split(",")]
                inner = [self._traffic(name) for name in called]
                once = max(inner) if one.opcode == "conditional" else sum(inner)
                total += once * int(trips[1] if trips else 1)
            else:
                read = one.operands & instructions.keys()
                total += one.bytes + sum(instructions[name].bytes for name in read)
        return total


def _bytes(shape: str, opcode: str) -> int:
    """Of the arrays in the text of a shape; the scratch space of a library's call (bytes, u8) is left out."""
    total = 0
    for kind, bits, sides in _ARRAY.findall(shape):
        if opcode == "custom-call" and kind + bits == "u8":
            continue
        bits = 8 if kind == "pred" else int(bits or 0)
        total += math.prod(int(side) for side in sides.split(",") if side) * bits // 8
    return total


# -------------------- the device --------------------


def limits(dtype: str) -> tuple[float, float]:
    """What the default device does at best, in float operations and bytes a second.

    Operations are those of a matrix product of `dtype`, as precise as JAX makes it by default: the factors of
    float32 are rounded to TF32 on a GPU. Bytes are those of a block that is read and written elsewhere.
    """
    side, megabytes = SIZES.get(jax.default_backend(), _SIZES)
    options = {"compiler_options": platform.compiler_options()}
    # Noise: of constants the products take less power, and a GPU is clocked higher than any training sees.
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    block = jnp.zeros(megabytes * 2**18, jnp.float32)
    product, copy = jax.jit(lambda a: a @ a, **options), jax.jit(lambda a: a + 1, **options)
    return 2 * side**3 / _seconds(lambda: product(matrix)), 2 * block.nbytes / _seconds(lambda: copy(block))


def _seconds(work: Callable[[], jax.Array]) -> float:
    """That a call takes among several that are queued, at best."""
    work().block_until_ready()
    best = math.inf
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            result = work()
        result.block_until_ready()
        best = min(best, (time.perf_counter() - started) / CALLS)
    return best
