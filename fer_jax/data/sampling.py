"""Samples the faces of an epoch and their order."""

import dataclasses

import numpy as np


def class_shares(labels: np.ndarray, balancing: float) -> np.ndarray:
    """Returns the sampling share of each class: its count to the power 1 - balancing, normalized.

    Args:
      labels: int [N].
      balancing: in [0, 1]; 0 keeps the natural shares, 1 equalizes them, 0.5 is square-root sampling
        (Mahajan et al. 2018, arXiv:1805.00932).

    Returns:
      float64 [K] for the classes up to the highest label; 0 for a class without faces.
    """
    counts = np.bincount(labels)
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** (1 - balancing), 0.0)
    return weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class EpochOrder:
    """Samples the N faces of an epoch, in random order.

    Without balancing every face occurs once. With balancing each class has its share of the epoch (see
    `class_shares`), rounded at random so that it is exact on average and the epoch has N faces. Within a
    class, counts of faces differ by at most one.
    """

    labels: np.ndarray  # int [N]
    balancing: float  # in [0, 1]

    def __call__(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns indices int64 [count]; `count` must be N."""
        if not self.balancing:
            return rng.permutation(count)
        # Systematic rounding: integer steps over the running sum, from a random start.
        ends = np.cumsum(class_shares(self.labels, self.balancing))[:-1] * count
        ends = np.floor([0, *(ends + rng.random()), count]).astype(np.int64)
        drawn = [
            _draw_evenly(np.flatnonzero(self.labels == label), number, rng)
            for label, number in enumerate(np.diff(ends))
        ]
        return rng.permutation(np.concatenate(drawn))


def _draw_evenly(members: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Samples `number` members; their counts differ by at most one."""
    if not number:
        return members[:0]
    whole, rest = divmod(number, len(members))
    return np.concatenate([np.tile(members, whole), rng.permutation(members)[:rest]])
