"""Computes classification metrics over a split, in NumPy.

Functions take `probs` float [N, K], rows that sum to 1, and `labels` int [N]. The prediction is the class
with the highest probability, the first in a tie. Absent classes are treated as by scikit-learn with
zero_division=0: undefined precision, recall, and F1 are 0, balanced accuracy averages over classes that have
images, macro F1 over classes that have images or predictions.
"""

import numpy as np

# As scikit-learn's log_loss.
_SMALLEST = np.finfo(np.float64).eps


def check(probs: np.ndarray, labels: np.ndarray) -> None:
    """Validates the arguments of all functions here.

    Raises:
      ValueError: there are no images, shapes do not match, a label is outside [0, K), or a row is not a
        distribution.
    """
    if probs.ndim != 2 or labels.shape != probs.shape[:1]:
        raise ValueError(
            f"expected probabilities [N, K] and labels [N], got {probs.shape} and {labels.shape}"
        )
    if not len(labels):
        raise ValueError("no images to evaluate: the split is empty")
    if labels.min() < 0 or labels.max() >= probs.shape[1]:
        raise ValueError(
            f"labels range from {labels.min()} to {labels.max()}, expected 0 to {probs.shape[1] - 1}"
        )
    wrong = ~(np.isclose(probs.sum(axis=1), 1, atol=1e-4) & (probs >= 0).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"row {row} is not a probability distribution: {probs[row].tolist()} "
            f"({wrong.sum()} of {len(wrong)} rows)"
        )


def confusion_matrix(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns counts int64 [K, K], rows by true class, columns by predicted class."""
    classes = probs.shape[1]
    cells = labels.astype(np.int64) * classes + probs.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the scores of each class, for confusion matrices [..., K, K].

    Returns:
      'precision', 'recall', 'f1' float64 [..., K]; 'support' (number of images) and 'predicted' (number
      of predictions) [..., K].
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    support, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    return {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, support),
        "f1": ratio(2 * hits, support + predicted),
        "support": support,
        "predicted": predicted,
    }


def scores(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the scores of confusion matrices [..., K, K], each of at least one image.

    Returns:
      float64 [...]: 'accuracy'; 'balanced_accuracy', the mean recall of the classes that have images;
      'macro_f1', the mean F1 of the classes that have images or predictions; 'weighted_f1', the mean F1
      weighted by the number of images.
    """
    classes = per_class(matrix)
    support, total = classes["support"], matrix.sum(axis=(-2, -1))
    seen = (support + classes["predicted"]) > 0
    return {
        "accuracy": np.trace(matrix, axis1=-2, axis2=-1) / total,
        "balanced_accuracy": classes["recall"].sum(axis=-1) / (support > 0).sum(axis=-1),
        "macro_f1": classes["f1"].sum(axis=-1) / seen.sum(axis=-1),
        "weighted_f1": (classes["f1"] * support).sum(axis=-1) / total,
    }


def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the accuracy."""
    return float((probs.argmax(axis=1) == labels).mean())


def nll(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the negative log-likelihood of each label in nats, at most 36, float64 [N]."""
    likelihood = probs[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(likelihood, _SMALLEST, 1 - _SMALLEST))


def brier(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the squared distance of each distribution from its one-hot label, float64 [N] in [0, 2]."""
    target = np.eye(probs.shape[1])[labels]
    return ((probs - target) ** 2).sum(axis=1)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns a / b, or 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)
