"""Whether a confidence means something, what makes it mean more, and what abstaining gains.

Every function takes `probs` float [N, K], rows that sum to 1, and `labels` int [N]. An image's
confidence is its highest probability.
"""

import numpy as np
import scipy  # whose parts load when they are used

from fer_jax.data import splits
from fer_jax.evaluation.metrics import classification

BINS = 15
_SMALLEST = np.finfo(np.float64).tiny


def bin_index(confidence: np.ndarray, bins: int = BINS, *, adaptive: bool = False) -> np.ndarray:
    """The bin of each confidence, int [N] in [0, bins); an edge belongs to the bin below it.

    Args:
      confidence: float [N] in [0, 1].
      bins: how many.
      adaptive: edges at the quantiles of the confidences, so that the bins have about equally many,
        instead of at equal distances in [0, 1].
    """
    edges = np.linspace(0, 1, bins + 1)
    if adaptive:
        edges = np.quantile(confidence, edges)
    return np.searchsorted(edges[1:-1], confidence, side="left")


def reliability(
    probs: np.ndarray, labels: np.ndarray, bins: int = BINS, *, adaptive: bool = False
) -> dict[str, np.ndarray]:
    """How often predictions of a given confidence are right.

    Returns:
      'count' int [bins], 'confidence' and 'accuracy' float [bins] (means over the bin's images, 0
      where it has none). For the other arguments see `bin_index`.
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
    """Expected calibration error of the predicted class (Guo et al. 2017, arXiv:1706.04599).

    With `adaptive` over bins of equally many images (Nguyen & O'Connor 2015, arXiv:1508.05154), which
    no nearly empty bin can sway.
    """
    table = reliability(probs, labels, bins, adaptive=adaptive)
    gaps = abs(table["accuracy"] - table["confidence"])
    return float(np.average(gaps, weights=table["count"]))


def rescale(probs: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log(probs) / temperature) float64 [N, K]: no prediction changes, only how sure it is."""
    scaled = np.log(np.maximum(probs.astype(np.float64), _SMALLEST)) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, in [0.01, 100], of the least negative log-likelihood (Guo et al. 2017)."""

    def loss(log_temperature):
        return classification.nll(rescale(probs, np.exp(log_temperature)), labels).mean()

    bound = np.log(100)
    found = scipy.optimize.minimize_scalar(
        loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-9}
    )
    return float(np.exp(found.x))


def calibrate(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What a checkpoint keeps of its calibration: 'temperature', and the mean loss before and after."""
    temperature = fit_temperature(probs, labels)
    return {
        "temperature": temperature,
        "loss_before": float(classification.nll(probs, labels).mean()),
        "loss_after": float(classification.nll(rescale(probs, temperature), labels).mean()),
    }


def cross_rescale(probs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each half of the images rescaled by the temperature of the other, float64 [N, K].

    What rescaling does to images that the temperature was not fitted on, where there are no others.

    Args:
      groups: int [N]; the images of a group are in one half.
    """
    halves = splits.stratified_group_split(labels, groups, {"a": 0.5, "b": 0.5}, seed=0)
    result = np.empty(probs.shape)
    for here, other in ((halves["a"], halves["b"]), (halves["b"], halves["a"])):
        temperature = fit_temperature(probs[other], labels[other]) if len(other) else 1.0
        result[here] = rescale(probs[here], temperature)
    return result


def risk_coverage(probs: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The error rate of the images that are answered, for every threshold on the confidence.

    A classifier that may abstain (El-Yaniv & Wiener 2010) answers the images whose confidence is a
    threshold at least; images of one confidence are answered together.

    Returns:
      'threshold' float [M], descending, the confidences that occur; 'coverage' float [M], the share
      of the images that is answered, ascending to 1; 'risk' float [M], the share of wrong answers.
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
    """Area under a curve of `risk_coverage`: the mean risk over all coverages (Geifman et al. 2019)."""
    return float(np.sum(curve["risk"] * np.diff(curve["coverage"], prepend=0)))


def answering(curve: dict[str, np.ndarray], coverage: float) -> dict[str, float]:
    """What answering the surest images gives.

    Args:
      curve: from `risk_coverage`.
      coverage: share of the images to answer at least, in (0, 1].

    Returns:
      'threshold' on the confidence, 'coverage' and 'accuracy' of what is answered.
    """
    place = int(np.searchsorted(curve["coverage"], coverage - 1e-12))
    return {
        "threshold": float(curve["threshold"][place]),
        "coverage": float(curve["coverage"][place]),
        "accuracy": float(1 - curve["risk"][place]),
    }
