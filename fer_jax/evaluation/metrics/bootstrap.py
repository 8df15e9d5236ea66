"""Bootstraps all metrics of a split (percentile bootstrap, Efron & Tibshirani 1993, ch. 13).

Groups of identical images are resampled together. The same seed gives two models on the same images and
groups the same resamples, so their difference is the paired bootstrap.
"""

import functools
from collections.abc import Iterator, Mapping

import numpy as np

from fer_jax.evaluation.metrics import calibration, classification

RESAMPLES = 2000
_BLOCK = 100  # resamples per block; bounds the memory
_CACHED = 8_000  # units of the largest split with cached draws: 2,000 resamples take 32 MB

PER_CLASS = ("precision", "recall", "f1")
CALIBRATION_ERRORS = ("ece", "adaptive_ece")


def resample(
    probs: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns all metrics of all resamples.

    Args:
      probs: float [N, K], rows that sum to 1.
      labels: int [N].
      groups: int [N]; images of a group, such as identical images, are drawn together; None draws single
        images.
      resamples: number of resamples, R.
      seed: random seed.

    Returns:
      float64 [R]: 'accuracy', 'balanced_accuracy', 'macro_f1', 'weighted_f1', 'loss' (mean negative
      log-likelihood), 'brier', 'mean_confidence', 'ece', 'adaptive_ece' (with the bins of the entire split);
      float64 [R, K]: 'precision', 'recall', 'f1', the last two NaN in a resample without images of the class.
    """
    sums = resample_sums(_sums(probs, labels), groups, resamples=resamples, seed=seed)
    return _metrics(sums, probs.shape[1])


def resample_sums(
    values: np.ndarray, groups: np.ndarray | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Returns the sums of per-image values [N, F] over each resample, float64 [R, F]; see `resample`."""
    sums = values
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(np.asarray(groups)[order], prepend=np.min(groups) - 1))
        sums = np.add.reduceat(values[order], starts, axis=0)
    draw = _cached if len(sums) <= _CACHED else _draw
    return np.concatenate([counts.astype(np.float64) @ sums for counts in draw(len(sums), resamples, seed)])


def _draw(units: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields the counts of units in resamples, uint16 [at most _BLOCK, units]."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        counts = [
            np.bincount(rng.integers(units, size=units), minlength=units)
            for _ in range(min(_BLOCK, resamples - start))
        ]
        yield np.stack(counts).astype(np.uint16)


@functools.lru_cache(maxsize=4)  # models are compared on a split and its leak-free parts
def _cached(units: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_draw(units, resamples, seed))


def interval(values: np.ndarray) -> np.ndarray:
    """Returns the central 95 % of values [R] or [R, K], float64 [2] or [2, K]; NaN is ignored."""
    return np.nanquantile(values, [(1 - 0.95) / 2, (1 + 0.95) / 2], axis=0)


def intervals(drawn: Mapping[str, np.ndarray], figures: Mapping[str, float]) -> dict[str, list[float]]:
    """Returns the 95 % interval of each metric of a split, from the result of `resample`.

    Calibration errors use the basic bootstrap (Efron & Tibshirani 1993, ch. 13: quantiles mirrored at the
    metric), clipped at 0 and with an upper bound no lower than the metric, because the calibration error of
    resamples is biased upward.
    """
    found = {}
    for name, figure in figures.items():
        low, high = interval(drawn[name]).tolist()
        if name in CALIBRATION_ERRORS:
            low, high = max(0.0, 2 * figure - high), max(figure, 2 * figure - low)
        found[name] = [low, high]
    return found


def p_value(differences: np.ndarray) -> float:
    """Returns the two-sided p-value of resampled differences [R] of two models."""
    tail = min((differences <= 0).mean(), (differences >= 0).mean())
    return float(min(1.0, 2 * max(tail, 1 / len(differences))))


def _sums(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns per-image values float64 [N, F] whose sums determine all metrics."""
    count, classes = probs.shape
    rows = np.arange(count)
    confidence = probs.max(axis=1).astype(np.float64)
    predicted = probs.argmax(axis=1)
    cells = np.zeros((count, classes**2))
    cells[rows, labels.astype(np.int64) * classes + predicted] = 1
    gaps = np.zeros((2, count, calibration.BINS))
    for gap, adaptive in zip(gaps, (False, True), strict=True):
        index = calibration.bin_index(confidence, adaptive=adaptive)
        gap[rows, index] = (predicted == labels) - confidence
    means = [classification.nll(probs, labels), classification.brier(probs, labels), confidence]
    return np.concatenate([cells, *gaps, np.stack(means, axis=1)], axis=1)


def _metrics(sums: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Returns the metrics of sums [R, F] over images."""
    ends = np.cumsum([classes**2, calibration.BINS, calibration.BINS])
    cells, even, adaptive, means = np.split(sums, ends, axis=1)
    total = cells.sum(axis=1)
    matrices = cells.reshape(-1, classes, classes)
    of_class = classification.per_class(matrices)
    return (
        classification.scores(matrices)
        | dict(zip(("loss", "brier", "mean_confidence"), (means / total[:, None]).T, strict=True))
        | {"ece": abs(even).sum(axis=1) / total, "adaptive_ece": abs(adaptive).sum(axis=1) / total}
        | {"precision": of_class["precision"]}
        | {name: np.where(of_class["support"] > 0, of_class[name], np.nan) for name in ("recall", "f1")}
    )
