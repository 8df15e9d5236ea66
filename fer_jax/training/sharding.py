"""Where state and batches live: one device, a mesh of all devices (`jit`) or a replica a device (`pmap`)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fer_jax import runtime

MODES = ("auto", "jit", "pmap")
AXIS = "data"


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled step with the constants it takes: `step(state, batch) -> (state, metrics)`.

    Attributes:
      program: of (state, batch, *constants), compiled by `jax.jit` or `jax.pmap`.
      constants: placed on the devices.
    """

    program: Callable[..., Any]
    constants: Sequence[Any]

    def __call__(self, state: Any, batch: Any) -> tuple[Any, Any]:
        return self.program(state, batch, *self.constants)

    def trace(self, state: Any, batch: Any) -> jax.stages.Traced:
        """The program for arguments like these, before it is compiled; not of `jax.pmap`, which has none."""
        return self.program.trace(state, batch, *self.constants)


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """How a run is spread over devices. All modes compute the same numbers for the same global batch.

    Attributes:
      mode: "jit" or "pmap".
      mesh: all devices of all processes in one row.
    """

    mode: str
    mesh: Mesh

    @property
    def axis_name(self) -> str | None:
        """What the step and BatchNorm must sum over themselves: the mapped axis under pmap, else nothing."""
        return AXIS if self.mode == "pmap" else None

    def compile(self, step: Callable[..., Any], *constants: Any) -> CompiledStep:
        """`step(state, batch, *constants) -> (state, metrics)` compiled, as a function of state and batch.

        The old state's memory is reused. The constants are such as `put_state` placed.
        """
        return CompiledStep(self._compile(step, len(constants)), constants)

    def _compile(self, step: Callable[..., Any], constants: int) -> Callable[..., Any]:
        if self.mode == "pmap":
            return jax.pmap(step, axis_name=AXIS, donate_argnums=0)
        whole, split = self._sharding(), self._sharding(AXIS)
        return jax.jit(
            step,
            in_shardings=(whole, split, *[whole] * constants),
            out_shardings=(whole, whole),
            donate_argnums=0,
            compiler_options=runtime.compiler_options(),
        )

    def put_state(self, state: Any) -> Any:
        """A host or single-device state, equal in every process, placed for the step."""
        if self.mode == "pmap":
            devices = jax.local_devices()
            rows = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))
            return jax.tree.map(
                lambda x: jax.device_put(np.broadcast_to(x, (len(devices), *np.shape(x))), rows), state
            )
        sharding = self._sharding()
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), state)

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """This process's part of a batch, placed for the step."""
        if self.mode == "pmap":
            count = jax.local_device_count()
            return {k: v.reshape(count, v.shape[0] // count, *v.shape[1:]) for k, v in batch.items()}
        sharding = self._sharding(AXIS)
        return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}

    def fetch(self, tree: Any) -> Any:
        """What `put_state` placed or the step returned, as NumPy arrays of this process."""
        if self.mode == "pmap":
            return jax.tree.map(_first_replica, tree)
        return jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))

    def _sharding(self, *spec: str) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*spec))


def _first_replica(x: Any) -> np.ndarray:
    return np.asarray(x.addressable_data(0))[0]


def place(mode: str, batch_size: int, mixes: bool = False) -> Partitioner:
    """The placement for `mode`.

    Args:
      mode: "jit" shards the batch over a mesh of all devices and leaves the collectives to the compiler;
        "pmap" runs one replica a device with explicit sums; "auto" is "jit" on one device, "pmap" on
        several.
      batch_size: global batch size.
      mixes: whether mixup or cutmix pairs neighbours, which needs an even number of faces a device.

    Raises:
      ValueError: unknown mode, or the batch does not divide among the devices.
    """
    if mode not in MODES:
        raise ValueError(f"config.parallel is {mode!r}; there are: {', '.join(MODES)}")
    devices = jax.devices()
    unit = len(devices) * (2 if mixes else 1)
    if batch_size % unit:
        pairs = " in pairs (mixup and cutmix need them)" if mixes else ""
        raise ValueError(
            f"config.train.batch_size={batch_size} does not divide among {len(devices)} devices{pairs}: "
            f"choose a multiple of {unit}, such as {max(1, round(batch_size / unit)) * unit}"
        )
    if mode == "auto":
        mode = "jit" if len(devices) == 1 else "pmap"
    # The default axis types of jax.make_mesh are explicit, which Linen's layers do not take.
    return Partitioner(mode, Mesh(np.array(devices), (AXIS,)))
