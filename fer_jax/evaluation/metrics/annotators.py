"""Compares a model with human annotators, by FER+ votes.

FER2013 has one label per image, from a search keyword and one person; FER+ has the votes of ten annotators
(Barsoum et al. 2016, arXiv:1608.01041). Where annotators disagree, no model can agree with all of them.
"""

from typing import Any

import numpy as np
import scipy  # its submodules load on first use

from fer_jax import batch_inference
from fer_jax.data import ferplus
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation.metrics import bootstrap

RULE = "ferplus_majority"
BANDS = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0))  # of agreement, including the upper edge


def compare(
    probs: np.ndarray, given: np.ndarray, votes: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, Any] | None:
    """Scores a model against the dataset's own labels and against the annotators.

    Args:
      probs: float [N, K], with K = 7 or 8 classes as in `emotions.class_names`; only the first 7 are scored
        against the given labels, which lack contempt.
      given: int [N], the dataset's own labels.
      votes: int [N, 10], in the order of `ferplus.COLUMNS`; rows of zeros are images without votes.
      groups: int [N], resampled together; None resamples single images.

    Returns:
      None if no image has votes; otherwise, over the images with votes,

      'against': for 'given' and `RULE` the number of images with this label, the accuracy, and its interval;
        'labels_agree', the share of images with both labels for which they are equal;
      'bands': for each of `BANDS` of agreement (the share of the most frequent vote) the same accuracies,
        'num_examples', and the means of agreement and `one_annotator`;
      'soft': over the images of the rule 'ferplus_votes', the mean 'cross_entropy' in nats against the
        annotators' distribution, and its lower bound 'floor', the entropy of that distribution.
    """
    voted = np.flatnonzero(votes.any(axis=1))
    if not len(voted):
        return None
    probs, given, votes = probs[voted], given[voted], np.asarray(votes[voted], np.int64)
    groups = np.arange(len(voted)) if groups is None else groups[voted]
    majority = ferplus.labels(votes, RULE, probs.shape[1])[0]
    scored = {"given": (batch_inference.restrict(probs, len(EMOTIONS)), given), RULE: (probs, majority)}

    def against(chosen: np.ndarray | slice) -> dict[str, Any]:
        return {name: _accuracy(p[chosen], y[chosen], groups[chosen]) for name, (p, y) in scored.items()}

    agreement = votes.max(axis=1) / votes.sum(axis=1)
    annotator = one_annotator(votes)
    both = majority != ferplus.LEFT_OUT
    bands = []
    for low, high in BANDS:
        band = (agreement > low) & (agreement <= high)
        row = {"agreement_above": low, "agreement_up_to": high, "num_examples": int(band.sum())}
        if band.any():
            row["agreement"] = float(agreement[band].mean())
            row["one_annotator"] = float(annotator[band].mean())
            row["against"] = against(band)
        bands.append(row)
    return {
        "rule": RULE,
        "num_examples": len(voted),
        "against": against(slice(None)),
        "labels_agree": float((given == majority)[both].mean()) if both.any() else None,
        "one_annotator": float(annotator.mean()),
        "bands": bands,
        "soft": _soft(probs, votes),
    }


def title(band: dict[str, Any]) -> str:
    """Returns the title of a band of `compare`."""
    above = f"above {band['agreement_above']:.0%}, " if band["agreement_above"] else ""
    return f"{above}up to {band['agreement_up_to']:.0%}"


def one_annotator(votes: np.ndarray) -> np.ndarray:
    """Returns how often a random annotator agrees with the most frequent vote of the others, float64 [N].

    Args:
      votes: int [N, 10], at least two votes per row; ties go to the first column.
    """
    found = np.zeros(len(votes))
    for column, vote in enumerate(np.eye(votes.shape[1], dtype=votes.dtype)):
        found += votes[:, column] * ((votes - vote).argmax(axis=1) == column)
    return found / votes.sum(axis=1)


def _accuracy(probs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    kept = (labels != ferplus.LEFT_OUT) & (labels < probs.shape[1])
    if not kept.any():
        return {"num_examples": 0, "accuracy": None, "interval_95": None}
    right = probs[kept].argmax(axis=1) == labels[kept]
    drawn = bootstrap.resample(probs[kept], labels[kept], groups[kept])["accuracy"]
    return {
        "num_examples": int(kept.sum()),
        "accuracy": float(right.mean()),
        "interval_95": bootstrap.interval(drawn).tolist(),
    }


def _soft(probs: np.ndarray, votes: np.ndarray) -> dict[str, float] | None:
    labels, targets = ferplus.labels(votes, "ferplus_votes", probs.shape[1])
    kept = labels != ferplus.LEFT_OUT
    if not kept.any():
        return None
    targets, probs = targets[kept].astype(np.float64), np.clip(probs[kept], np.finfo(float).eps, 1)
    return {
        "num_examples": int(kept.sum()),
        "cross_entropy": float(-scipy.special.xlogy(targets, probs).sum(axis=1).mean()),
        "floor": float(scipy.special.entr(targets).sum(axis=1).mean()),
    }
