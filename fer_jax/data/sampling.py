"""Draws the faces of an epoch and their order."""

import dataclasses

import numpy as np


def class_shares(labels: np.ndarray, balancing: float) -> np.ndarray:
    """Returns how often each class is drawn: its number of faces to the power 1 - balancing, normalized.

    Args:
      labels: int [N].
      balancing: in [0, 1]; 0 leaves the shares as they are, 1 makes them equal, 0.5 draws by the square
        root (Mahajan et al. 2018, arXiv:1805.00932).

    Returns:
      float64 [K] for the classes up to the highest label; 0 for a class without faces.
    """
    counts = np.bincount(labels)
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** (1 - balancing), 0.0)
    return weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class EpochOrder:
    """A drawing of the N faces of one epoch, in random order.

    Without balancing every face is drawn once. With it each class gets its share of the epoch (see
    `class_shares`), rounded up or down at random so that it is exact on average and the epoch has N faces.
    Faces of one class are drawn equally often, or some once more than the others.

    Attributes:
      labels: int [N].
      balancing: in [0, 1].
    """

    labels: np.ndarray
    balancing: float

    def __call__(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns indices int64 [count], all randomness from `rng`; `count` is N."""
        if not self.balancing:
            return rng.permutation(count)
        # Systematic rounding: steps of a whole number over the running sum, from a random start.
        ends = np.cumsum(class_shares(self.labels, self.balancing))[:-1] * count
        ends = np.floor([0, *(ends + rng.random()), count]).astype(np.int64)
        drawn = [
            _draw_evenly(np.flatnonzero(self.labels == label), number, rng)
            for label, number in enumerate(np.diff(ends))
        ]
        return rng.permutation(np.concatenate(drawn))


def _draw_evenly(members: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `number` of the members, each as often as any other or once more."""
    if not number:
        return members[:0]
    whole, rest = divmod(number, len(members))
    return np.concatenate([np.tile(members, whole), rng.permutation(members)[:rest]])
