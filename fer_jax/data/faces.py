"""Defines a split in memory."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fer_jax.data.emotions import EMOTIONS


@dataclasses.dataclass(frozen=True)
class Faces:
    """A split of a dataset.

    Attributes:
      images: uint8 [N, H, W, C] with C = 1 (gray) or 3 (RGB): an array or, for a split that is streamed
        from disk, a `read.StreamedImages`.
      labels: int32 [N], indices into `emotions.class_names(K)`.
      targets: float32 [N, K], the label distribution to train on: one-hot unless labels are soft.
      ids: N strings that name each image in its source, stable across runs and machines.
      votes: int32 [N, 10], FER+ votes in the order of `ferplus.COLUMNS`, zeros for images without votes;
        None if the dataset has none.
    """

    images: Any
    labels: np.ndarray
    targets: np.ndarray
    ids: Sequence[str]
    votes: np.ndarray | None = None

    def __post_init__(self):
        counts = [self.images.shape[0], len(self.labels), len(self.targets), len(self.ids)]
        counts += [] if self.votes is None else [len(self.votes)]
        if len(set(counts)) != 1:
            raise ValueError(
                f"images, labels, targets, ids, and votes must have the same length, got {counts}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every face."""
        return tuple(self.images.shape[1:])

    def take(self, indices: np.ndarray) -> "Faces":
        """Returns the faces at `indices` (int [M]); a streamed split stays on disk."""
        indices = np.asarray(indices)
        in_memory = isinstance(self.images, np.ndarray)
        images = self.images[indices] if in_memory else self.images.take(indices)
        ids: list[Any] = [self.ids[i] for i in indices.tolist()]
        votes = None if self.votes is None else self.votes[indices]
        return Faces(images, self.labels[indices], self.targets[indices], ids, votes)


@dataclasses.dataclass(frozen=True)
class LazyImages:
    """Images uint8 [N, H, W, C] that `make` returns when places int [B] are accessed."""

    shape: tuple[int, ...]
    make: Callable[[np.ndarray], np.ndarray]

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self.make(index)


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Returns labels int [N] of the seven emotions as float32 [N, 7]."""
    return np.eye(len(EMOTIONS), dtype=np.float32)[labels]
