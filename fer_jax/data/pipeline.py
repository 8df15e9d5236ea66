"""The training input pipeline, with Grain.

A batch is a pure function of (seed, global batch size, batch number), whatever the number of processes,
workers, and resumptions, so the position in the stream is a single number. Each process draws the
augmentation of the entire global batch (microseconds) and takes its own part.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

import grain.python as grain
import jax
import numpy as np
from absl import flags

from fer_jax.data import augment, transforms
from fer_jax.data.faces import Faces
from fer_jax.data.sampling import EpochOrder

READ_AHEAD = 8  # batches


class TrainStream(Iterator[dict[str, np.ndarray]]):
    """An endless stream of shuffled, augmented batches for one process.

    Each epoch has a new order. A batch may span two epochs. Every epoch has every face once or, with class
    balancing, the same number of faces (see `sampling.EpochOrder`).

    Yields dicts: 'image' uint8 [b, H, W, C], 'target' float32 [b, K], and 'affine', 'color', 'erase', and
    optionally 'mix' from `augment.draw`, with b = batch_size / process_count. A thread prefetches batches.

    Attributes:
      batches_per_epoch: float, the number of global batches per epoch.
      wait_seconds: total time that the consumer has waited in `next`; may be reset.
    """

    def __init__(
        self,
        faces: Faces,
        batch_size: int,
        ranges: augment.Ranges,
        seed: int,
        *,
        balancing: float = 0.0,
        process_index: int = 0,
        process_count: int = 1,
        num_workers: int = 0,
    ):
        """
        Args:
          faces: the training faces.
          batch_size: global batch size, over all processes.
          ranges: the augmentation.
          seed: seed of order and augmentation, 0 to 2**32 - 1.
          balancing: strength of class balancing, in [0, 1]; see `sampling.class_shares`.
          process_index: index of this process.
          process_count: number of processes that share the global batch.
          num_workers: number of child processes that read (for streamed faces); 0 reads in a thread (best
            for faces in memory).

        Raises:
          ValueError: the batch size is not divisible by the number of processes, or there are no faces.
        """
        local = _local_part(batch_size, ranges, process_index, process_count)
        if not len(faces):
            raise ValueError("the training split is empty")
        order_seed, draw_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
        # Element e is the order of epoch e. Elements are entire orders, and later entire batches, because
        # Grain's overhead per element (7 us for shuffle and batch) would dominate the cost per face.
        orders = (
            grain.MapDataset.source([len(faces)])
            .repeat()
            .random_map(EpochOrder(faces.labels, balancing), seed=order_seed)
        )
        self._batches = (
            grain.MapDataset.range(sys.maxsize // batch_size)
            .map(_Indices(orders, len(faces), batch_size))
            .random_map(functools.partial(_draw, ranges), seed=draw_seed)
            .map(functools.partial(_fetch, faces, local))
        )
        self._num_workers = num_workers
        self._iterator: Any = None
        self.batches_per_epoch = len(faces) / batch_size
        self.wait_seconds = 0.0
        self.restore({"next_batch": 0})

    def __next__(self) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        batch = next(self._iterator)
        self.wait_seconds += time.perf_counter() - started
        self._next_batch += 1
        return batch

    def state(self) -> dict[str, int]:
        """Returns the position as JSON types, valid for any number of workers and processes."""
        return {"next_batch": self._next_batch}

    def restore(self, state: dict[str, int]) -> None:
        """Moves to a position from `state()`, in constant time."""
        self.close()
        self._next_batch = int(state["next_batch"])
        rest = self._batches.slice(slice(self._next_batch, None))
        # More threads would contend for the GIL, and one keeps the order without overhead.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=READ_AHEAD)
        stream = rest.to_iter_dataset(options)
        if self._num_workers:
            if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags, which an app may not parse
                flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(self._num_workers))
        self._iterator = iter(stream)

    def close(self) -> None:
        """Stops prefetching; the stream yields nothing until `restore`."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def contact_sheet(
    batch: dict[str, Any],
    size: int,
    fill: str = "reflect",
    mean: float = 0.5,
    columns: int = 16,
    max_faces: int = 64,
) -> np.ndarray:
    """Returns a sheet of augmented faces, before normalization.

    Args:
      batch: from `TrainStream`.
      size: the model's input size.
      fill, mean: as in `transforms.apply`.
      columns: faces per row.
      max_faces: maximum number of faces, even.

    Returns:
      uint8 [rows * (size + 1), columns * (size + 1), C], faces in reading order, separated by black lines.
    """
    first = {name: value[:max_faces] for name, value in batch.items()}
    # Compiled as one program, because compiling each operation would take seconds.
    apply = jax.jit(transforms.apply, static_argnums=(1, 2, 3))
    x = np.asarray(apply(first, size, fill, mean)[0])
    rows = -(-len(x) // columns)
    sheet = np.zeros((rows * columns, size + 1, size + 1, x.shape[-1]), np.uint8)
    sheet[: len(x), :size, :size] = np.rint(x * 255)
    sheet = sheet.reshape(rows, columns, *sheet.shape[1:]).swapaxes(1, 2)
    return sheet.reshape(rows * (size + 1), columns * (size + 1), -1)


@dataclasses.dataclass
class _Indices:
    """Maps the number of a global batch to the indices of its faces, int64 [B]."""

    orders: grain.MapDataset  # of indices int64 [count], one element per epoch
    count: int  # of faces
    batch_size: int
    _recent: dict[int, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, number: int) -> np.ndarray:
        places = number * self.batch_size + np.arange(self.batch_size)
        epochs, places = np.divmod(places, self.count)
        # Read and replaced atomically: a thread stopped by `restore` may still compute its last batch.
        known = self._recent
        recent: dict[int, Any] = {
            e: known[e] if e in known else self.orders[e] for e in range(epochs[0], epochs[-1] + 1)
        }
        self._recent = recent
        if epochs[0] == epochs[-1]:
            return recent[epochs[0]][places]
        return np.array([recent[e][p] for e, p in zip(epochs, places, strict=True)])


def _draw(ranges: augment.Ranges, indices: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Adds augmentation parameters to the indices of a global batch."""
    return {"index": indices, **augment.draw(ranges, len(indices), rng)}


def _fetch(faces: Faces, local: slice, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps a global batch of indices and parameters to this process's part, with faces."""
    part = {name: value[local] for name, value in batch.items()}
    index = part.pop("index")
    return {"image": faces.images[index], "target": faces.targets[index], **part}


def _local_part(batch_size: int, ranges: augment.Ranges, process_index: int, process_count: int) -> slice:
    """Returns this process's slice of a global batch."""
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"the batch size {batch_size} is not divisible by {process_count} processes: "
            f"choose a multiple of {process_count}"
        )
    local = batch_size // process_count
    if ranges.mixes and local % 2:
        raise ValueError(
            f"mixup and cutmix need pairs, but with a batch size of {batch_size} each of "
            f"{process_count} processes has {local} faces, an odd number: choose a multiple of "
            f"{2 * process_count}, or disable both"
        )
    return slice(process_index * local, (process_index + 1) * local)
