"""Bootstrap (Efron & Tibshirani 1993, ch. 13) of whatever adds up over images."""

import numpy as np

RESAMPLES = 2000
_TOGETHER = 100  # resamples; bounds the memory


def resampled_means(
    values: np.ndarray, groups: np.ndarray | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Means over the images of resampled splits.

    All columns are drawn alike, so that what is computed from several of them is paired.

    Args:
      values: float [N, F], what adds up over images.
      groups: int [N]; images of one group (such as exact copies) are drawn together. None draws
        single images.
      resamples: how many, R.
      seed: of the draws.

    Returns:
      float64 [R, F].
    """
    values = np.asarray(values, np.float64)
    _, groups = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    sizes = np.bincount(groups)
    sums = np.zeros((len(sizes), values.shape[1]))
    np.add.at(sums, groups, values)
    rng, means = np.random.default_rng(seed), []
    for start in range(0, resamples, _TOGETHER):
        count = min(_TOGETHER, resamples - start)
        drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=count)
        means.append((drawn @ sums) / (drawn @ sizes)[:, None])
    return np.concatenate(means)


def interval(values: np.ndarray, level: float = 0.95) -> list[float]:
    """[low, high] around the middle share `level` of resampled values [R]."""
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
