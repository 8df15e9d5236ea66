"""Figures of merit, in plain NumPy, over all images of a split at once.

Every function takes `probs` float [N, K], rows that sum to 1, and `labels` int [N]. The prediction
is the class of the highest probability, the first of equals. Where a class is absent the
conventions are scikit-learn's with zero_division=0: a precision, recall or F1 without a denominator
is 0, balanced accuracy is a mean over the classes that have images, macro F1 one over the classes
that have images or predictions.
"""

import numpy as np

# scikit-learn's log_loss keeps the logarithm finite in the same way.
_SMALLEST = np.finfo(np.float64).eps


def check(probs: np.ndarray, labels: np.ndarray) -> None:
    """Checks what all functions here take.

    Raises:
      ValueError: no images, other shapes, a label outside [0, K), rows that are no distributions.
    """
    if probs.ndim != 2 or labels.shape != probs.shape[:1]:
        raise ValueError(
            f"expected probabilities [N, K] and labels [N], got {probs.shape} and {labels.shape}"
        )
    if not len(labels):
        raise ValueError("no images to evaluate: the split is empty")
    if labels.min() < 0 or labels.max() >= probs.shape[1]:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, expected 0 to {probs.shape[1] - 1}"
        )
    wrong = ~(np.isclose(probs.sum(axis=1), 1, atol=1e-4) & (probs >= 0).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"row {row} is no probability distribution: {probs[row].tolist()} "
            f"({wrong.sum()} of {len(wrong)} rows)"
        )


def confusion_matrix(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 [K, K]: row true class, column predicted class."""
    classes = probs.shape[1]
    cells = labels.astype(np.int64) * classes + probs.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of each class.

    Args:
      matrix: [..., K, K], one confusion matrix or many.

    Returns:
      'precision', 'recall', 'f1' float64 [..., K]; 'support' (images of the class) and 'predicted'
      (images taken for it) [..., K].
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    support, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "support": support,
        "predicted": predicted,
    }


def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose prediction is their label."""
    return float((probs.argmax(axis=1) == labels).mean())


def balanced_accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean recall of the classes that have images."""
    scores = per_class(confusion_matrix(probs, labels))
    return float(scores["recall"][scores["support"] > 0].mean())


def macro_f1(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 of the classes that have images or predictions."""
    return float(_macro_f1(confusion_matrix(probs, labels)))


def weighted_f1(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 of the classes, each weighted by its images."""
    scores = per_class(confusion_matrix(probs, labels))
    return float(np.average(scores["f1"], weights=scores["support"]))


def nll(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats; a probability counts as 2.2e-16 at least."""
    likelihood = probs[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(likelihood, _SMALLEST, 1 - _SMALLEST)).mean())


def brier(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the one-hot label, between 0 and 2."""
    target = np.eye(probs.shape[1])[labels]
    return float(((probs - target) ** 2).sum(axis=1).mean())


def reliability(probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """How often predictions of a given confidence are right.

    Args:
      probs, labels: see the module's docstring.
      bins: of equal width over [0, 1]; an edge belongs to the bin below it.

    Returns:
      'count' int [bins], 'confidence' and 'accuracy' float [bins] (means over the bin's images, 0
      where it has none).
    """
    confidence = probs.max(axis=1).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    right = (probs.argmax(axis=1) == labels).astype(np.float64)
    return {
        "count": count,
        "confidence": _ratio(np.bincount(index, confidence, bins), count),
        "accuracy": _ratio(np.bincount(index, right, bins), count),
    }


def ece(probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the predicted class (Guo et al., arXiv:1706.04599)."""
    table = reliability(probs, labels, bins)
    gaps = abs(table["accuracy"] - table["confidence"])
    return float(np.average(gaps, weights=table["count"]))


def bootstrap_interval(
    probs: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals (Efron & Tibshirani, 1993, ch. 13).

    Args:
      probs, labels: see the module's docstring.
      groups: int [N]; images of one group (such as exact copies) are drawn together. None draws
        single images.
      level: of the interval.
      resamples: number of resampled splits.
      seed: of the resampling.

    Returns:
      (low, high) of 'accuracy' and 'macro_f1'.
    """
    classes = probs.shape[1]
    cells = labels.astype(np.int64) * classes + probs.argmax(axis=1)
    if groups is None:
        kinds, counts = np.unique(cells, return_counts=True)
        tables = np.eye(classes**2)[kinds]
    else:
        _, groups = np.unique(groups, return_inverse=True)
        tables = np.zeros((groups.max() + 1, classes**2))
        np.add.at(tables, (groups, cells), 1)
        tables, counts = np.unique(tables, axis=0, return_counts=True)
    # Units with the same entry in the confusion matrix are interchangeable: drawing how many of
    # each kind come up is drawing the units one by one, at a fraction of the cost.
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    matrices = (drawn @ tables).reshape(resamples, classes, classes)
    hits = np.trace(matrices, axis1=1, axis2=2)
    scores = {"accuracy": hits / matrices.sum(axis=(1, 2)), "macro_f1": _macro_f1(matrices)}
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {name: tuple(np.quantile(values, tails).tolist()) for name, values in scores.items()}


def _macro_f1(matrix: np.ndarray) -> np.ndarray:
    """[...] from confusion matrices [..., K, K]."""
    scores = per_class(matrix)
    seen = (scores["support"] + scores["predicted"]) > 0
    return scores["f1"].sum(axis=-1) / seen.sum(axis=-1)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)
