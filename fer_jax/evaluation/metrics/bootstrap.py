"""What another draw of the images would have given: every figure, over resamples of a split.

Percentile bootstrap (Efron & Tibshirani 1993, ch. 13) over groups of identical images, which tell no
more than one image does. Figures of two models on the same images and groups are drawn alike by the
same seed, so that their difference, resample by resample, is the paired bootstrap.
"""

import functools
from collections.abc import Iterator, Mapping

import numpy as np

from fer_jax.evaluation.metrics import calibration, classification

RESAMPLES = 2000
_TOGETHER = 100  # resamples at a time, which bounds the memory
_KEPT = 8_000  # units of the largest split whose draws are kept: 2,000 resamples of it take 32 MB

PER_CLASS = ("precision", "recall", "f1")
CALIBRATION_ERRORS = ("ece", "adaptive_ece")


def resample(
    probs: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    bins: int = calibration.BINS,
) -> dict[str, np.ndarray]:
    """Every figure in every resample.

    Args:
      probs: float [N, K], rows that sum to 1.
      labels: int [N].
      groups: int [N]; images of one group (such as exact copies) are drawn together. None draws
        single images.
      resamples: how many, R.
      seed: of the draws.
      bins: of the calibration errors, whose edges are those of the whole split.

    Returns:
      float64 [R]: 'accuracy', 'balanced_accuracy', 'macro_f1', 'weighted_f1', 'loss' (mean negative
      log-likelihood), 'brier', 'mean_confidence', 'ece', 'adaptive_ece'; float64 [R, K]: 'precision',
      'recall', 'f1', the last two NaN in a resample without images of the class.
    """
    sums = resample_sums(_sums(probs, labels, bins), groups, resamples=resamples, seed=seed)
    return _figures(sums, probs.shape[1], bins)


def resample_sums(
    values: np.ndarray, groups: np.ndarray | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Sums over the images of every resample, of whatever adds up over images.

    Args:
      values: float [N, F]; all columns are drawn alike, so that what comes of several is paired.
      groups, resamples, seed: as `resample` takes them.

    Returns:
      float64 [R, F].
    """
    sums = values
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(np.asarray(groups)[order], prepend=np.min(groups) - 1))
        sums = np.add.reduceat(values[order], starts, axis=0)
    draw = _kept if len(sums) <= _KEPT else _draw
    return np.concatenate([counts.astype(np.float64) @ sums for counts in draw(len(sums), resamples, seed)])


def _draw(units: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each resample contains each unit: uint16 [at most _TOGETHER, units]."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _TOGETHER):
        counts = [
            np.bincount(rng.integers(units, size=units), minlength=units)
            for _ in range(min(_TOGETHER, resamples - start))
        ]
        yield np.stack(counts).astype(np.uint16)


@functools.lru_cache(maxsize=4)  # models are compared on a split and its leak-free parts
def _kept(units: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    """Returns what `_draw` yields."""
    return tuple(_draw(units, resamples, seed))


def interval(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The middle share `level` of values [R] or [R, K]: (low, high) as float64 [2] or [2, K].

    NaN, where a resample has none of the images that a figure is about, is left out.
    """
    return np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def intervals(
    drawn: Mapping[str, np.ndarray], figures: Mapping[str, float], level: float = 0.95
) -> dict[str, list[float]]:
    """The interval of every figure.

    That of a calibration error is the basic bootstrap's (Efron & Tibshirani 1993, ch. 13: as far from the
    figure as the resamples' quantiles, on the other side), no lower than 0 and no higher bound below the
    figure. For a resample's error lies above its split's on average, as the split's above the truth, and
    percentiles of them would lie above both.

    Args:
      drawn: from `resample`.
      figures: of the split, by their names in `drawn`.
      level: the share of the resamples inside.
    """
    found = {}
    for name, figure in figures.items():
        low, high = interval(drawn[name], level).tolist()
        if name in CALIBRATION_ERRORS:
            low, high = max(0.0, 2 * figure - high), max(figure, 2 * figure - low)
        found[name] = [low, high]
    return found


def p_value(differences: np.ndarray) -> float:
    """Two-sided, of resampled differences [R] of two models: how often they lie beyond 0."""
    tail = min((differences <= 0).mean(), (differences >= 0).mean())
    return float(min(1.0, 2 * max(tail, 1 / len(differences))))


def _sums(probs: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    """float64 [N, F]: what of each image adds up to all figures."""
    count, classes = probs.shape
    everyone = np.arange(count)
    confidence = probs.max(axis=1).astype(np.float64)
    predicted = probs.argmax(axis=1)
    cells = np.zeros((count, classes**2))
    cells[everyone, labels.astype(np.int64) * classes + predicted] = 1
    gaps = []
    for adaptive in (False, True):
        gap = np.zeros((count, bins))
        index = calibration.bin_index(confidence, bins, adaptive=adaptive)
        gap[everyone, index] = (predicted == labels) - confidence
        gaps.append(gap)
    means = [classification.nll(probs, labels), classification.brier(probs, labels), confidence]
    return np.concatenate([cells, *gaps, np.stack(means, axis=1)], axis=1)


def _figures(sums: np.ndarray, classes: int, bins: int) -> dict[str, np.ndarray]:
    """The figures of sums [R, F] over images."""
    ends = np.cumsum([classes**2, bins, bins])
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
