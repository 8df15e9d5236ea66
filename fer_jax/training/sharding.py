"""Distributes state and batches: over a mesh of all devices (`jit`), or as replicas (`pmap`)."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fer_jax import runtime

MODES = ("auto", "jit", "pmap")
AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """Shards batches over a mesh and replicates the rest; XLA inserts collectives.

    Both partitioners compute the same results for the same global batch.

    Attributes:
      mesh: a one-dimensional mesh of all devices of all processes.
      axis_name: mapped axis that the step and BatchNorm must reduce over, or None.
    """

    mesh: Mesh
    mode: ClassVar[str] = "jit"
    axis_name: ClassVar[str | None] = None

    def compile(self, step: Callable[..., Any], constants: int = 0) -> Callable[..., Any]:
        """Returns `step(state, batch, *constants) -> (state, metrics)`, compiled by its first call.

        The old state is donated; there are `constants` arguments after the batch, placed by `put_state`.
        """
        whole, split = self._sharding(), self._sharding(AXIS)
        return jax.jit(
            step,
            in_shardings=(whole, split, *[whole] * constants),
            out_shardings=(whole, whole),
            donate_argnums=0,
            compiler_options=runtime.compiler_options(),
        )

    def put_state(self, state: Any) -> Any:
        """Places a tree, equal in all processes, on the devices."""
        sharding = self._sharding()
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), state)

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Places this process's part of a batch on the devices."""
        sharding = self._sharding(AXIS)
        return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}

    def fetch(self, tree: Any) -> Any:
        """Returns a tree from `put_state` or the step as NumPy arrays."""
        return jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))

    def _sharding(self, *spec: str) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*spec))


class PmapPartitioner(Partitioner):
    """Runs one replica per device with `jax.pmap`; the step itself reduces over devices.

    Since JAX 0.8 `jax.pmap` is a `jit` of `shard_map` and is in maintenance mode.
    """

    mode = "pmap"
    axis_name = AXIS

    def compile(self, step: Callable[..., Any], constants: int = 0) -> Callable[..., Any]:
        return jax.pmap(step, axis_name=AXIS, donate_argnums=0)

    def put_state(self, state: Any) -> Any:
        devices = jax.local_devices()
        rows = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))
        return jax.tree.map(
            lambda x: jax.device_put(np.broadcast_to(x, (len(devices), *np.shape(x))), rows), state
        )

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        count = jax.local_device_count()
        return {k: v.reshape(count, v.shape[0] // count, *v.shape[1:]) for k, v in batch.items()}

    def fetch(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], tree)


def make_partitioner(mode: str, batch_size: int, mixes: bool = False) -> Partitioner:
    """Returns a partitioner over all devices for `config.parallel`, one of MODES; "auto" is "jit".

    If mixup or cutmix `mixes` neighbors, each device needs an even number of faces.

    Raises:
      ValueError: the mode is unknown, or the batch size is not divisible by the number of devices.
    """
    if mode not in MODES:
        raise ValueError(f"config.parallel is {mode!r}; there are: {', '.join(MODES)}")
    devices = jax.devices()
    unit = len(devices) * (2 if mixes else 1)
    if batch_size % unit:
        pairs = " in pairs (mixup and cutmix need them)" if mixes else ""
        raise ValueError(
            f"config.train.batch_size={batch_size} is not divisible by {len(devices)} devices{pairs}: "
            f"choose a multiple of {unit}, such as {max(1, round(batch_size / unit)) * unit}"
        )
    # jax.make_mesh defaults to explicit axis types, which Linen's layers do not support.
    mesh = Mesh(np.array(devices), (AXIS,))
    return PmapPartitioner(mesh) if mode == "pmap" else Partitioner(mesh)


# -------------------- several processes --------------------


def all_processes(value: bool) -> bool:
    """Returns whether `value` is true in every process; waits for all of them."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Makes all processes fail after the context if one of them failed in it.

    Raises:
      Exception: the exception of this process, or a ValueError if another process failed.
    """
    problem = None
    try:
        yield
    except Exception as error:
        problem = error
    if not all_processes(problem is None):
        raise problem or ValueError("another process of this run failed; see its message")


def gather(rows: np.ndarray) -> np.ndarray:
    """Concatenates float64 [N, K] of all processes, with equal N, in process order."""
    if jax.process_count() == 1:
        return rows
    # Without x64 JAX would round them to float32.
    bits = multihost_utils.process_allgather(np.ascontiguousarray(rows).view(np.uint32), tiled=True)
    return np.ascontiguousarray(bits).view(np.float64)
