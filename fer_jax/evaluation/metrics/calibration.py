"""Computes calibration, temperature scaling, and selective classification.

Functions take `probs` float [N, K], rows that sum to 1, and `labels` int [N]. The confidence of an image is
its highest probability.
"""

import numpy as np
import scipy  # its submodules load on first use

from fer_jax.data import splits
from fer_jax.evaluation.metrics import classification

BINS = 15
_SMALLEST = np.finfo(np.float64).tiny


def bin_index(confidence: np.ndarray, bins: int = BINS, *, adaptive: bool = False) -> np.ndarray:
    """Returns the bin of each confidence, int [N] in [0, bins); edges belong to the bin below.

    Args:
      confidence: float [N] in [0, 1].
      bins: number of bins.
      adaptive: whether bins have equal numbers of images instead of equal width.
    """
    edges = np.linspace(0, 1, bins + 1)
    if adaptive:
        edges = np.quantile(confidence, edges)
    return np.searchsorted(edges[1:-1], confidence, side="left")


def reliability(
    probs: np.ndarray, labels: np.ndarray, bins: int = BINS, *, adaptive: bool = False
) -> dict[str, np.ndarray]:
    """Returns the reliability diagram: 'count' int [bins], 'confidence' and 'accuracy' float [bins].

    Confidence and accuracy are means over the images of a bin, 0 for an empty bin. See `bin_index` for the
    other arguments.
    """
    confidence = probs.max(axis=1).astype(np.float64)
    index = bin_index(confidence, bins, adaptive=adaptive)
    count = np.bincount(index, minlength=bins)
    right = (probs.argmax(axis=1) == labels).astype(np.float64)
    return {
        "count": count,
        "confidence": classification.ratio(np.bincount(index, confidence, bins), count),
        "accuracy": classification.ratio(np.bincount(index, right, bins), count),
    }


def ece(probs: np.ndarray, labels: np.ndarray, bins: int = BINS, *, adaptive: bool = False) -> float:
    """Returns the expected calibration error of the predicted class (Guo et al. 2017, arXiv:1706.04599).

    `adaptive` uses bins with equal numbers of images (Nguyen & O'Connor 2015, arXiv:1508.05154).
    """
    table = reliability(probs, labels, bins, adaptive=adaptive)
    gaps = abs(table["accuracy"] - table["confidence"])
    return float(np.average(gaps, weights=table["count"]))


def rescale(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Returns softmax(log(probs) / temperature), float64 [N, K]; predictions stay the same."""
    logits = np.log(np.maximum(probs.astype(np.float64), _SMALLEST))
    return scipy.special.softmax(logits / temperature, axis=1)


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature in [0.01, 100] that minimizes the negative log-likelihood (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        return classification.nll(rescale(probs, np.exp(log_temperature)), labels).mean()

    bound = np.log(100)
    found = scipy.optimize.minimize_scalar(
        loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-9}
    )
    return float(np.exp(found.x))


def calibrate(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the calibration for a checkpoint: 'temperature', 'loss_before', and 'loss_after'."""
    temperature = fit_temperature(probs, labels)
    return {
        "temperature": temperature,
        "loss_before": float(classification.nll(probs, labels).mean()),
        "loss_after": float(classification.nll(rescale(probs, temperature), labels).mean()),
    }


def cross_rescale(probs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rescales each half of the images with the temperature fitted on the other half, float64 [N, K].

    Images with equal `groups`, int [N], are in the same half.
    """
    halves = splits.stratified_group_split(labels, groups, {"a": 0.5, "b": 0.5}, seed=0)
    result = np.empty(probs.shape)
    for here, other in ((halves["a"], halves["b"]), (halves["b"], halves["a"])):
        temperature = fit_temperature(probs[other], labels[other]) if len(other) else 1.0
        result[here] = rescale(probs[here], temperature)
    return result


def risk_coverage(probs: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the risk-coverage curve of a classifier that may abstain (El-Yaniv & Wiener 2010).

    Returns:
      'threshold' float [M], the distinct confidences, descending; 'coverage' float [M], the share of images
      with at least this confidence, ascending to 1; 'risk' float [M], their error rate.
    """
    confidence = probs.max(axis=1).astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    wrong = (probs.argmax(axis=1) != labels)[order].cumsum()
    last = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    return {
        "threshold": confidence[order][last],
        "coverage": (last + 1) / len(labels),
        "risk": wrong[last] / (last + 1),
    }


def aurc(curve: dict[str, np.ndarray]) -> float:
    """Returns the area under the curve of `risk_coverage` (Geifman et al. 2019)."""
    return float(np.sum(curve["risk"] * np.diff(curve["coverage"], prepend=0)))


def answering(curve: dict[str, np.ndarray], coverage: float) -> dict[str, float]:
    """Returns the point of a curve of `risk_coverage` with at least a given coverage, in (0, 1].

    Returns:
      'threshold', 'coverage', and 'accuracy' of the covered images.
    """
    place = int(np.searchsorted(curve["coverage"], coverage - 1e-12))
    return {
        "threshold": float(curve["threshold"][place]),
        "coverage": float(curve["coverage"][place]),
        "accuracy": float(1 - curve["risk"][place]),
    }
