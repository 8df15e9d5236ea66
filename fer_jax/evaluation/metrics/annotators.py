"""Model errors and human disagreement told apart, by FER+'s votes.

FER2013 has one label an image, by a search engine's keyword and one person; FER+ asked ten (Barsoum et
al. 2016, arXiv:1608.01041). Where they do not agree with each other a model cannot agree with them.
"""

from typing import Any

import numpy as np

from fer_jax import batch_inference
from fer_jax.data import ferplus
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation.metrics import bootstrap

RULE = "ferplus_majority"
BANDS = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0))  # of the agreement; the upper edge belongs to a band


def compare(
    probs: np.ndarray, given: np.ndarray, votes: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, Any] | None:
    """How a model does against the given labels and against the annotators'.

    Args:
      probs: float [N, K], K = 7 or 8 classes as `emotions.class_names`; against the given labels, which know
        no contempt, by the first 7 alone.
      given: int [N], the labels that the images came with.
      votes: int [N, 10], in the order of `ferplus.COLUMNS`; rows of zeros are images without votes.
      groups: int [N], which the intervals resample together; None resamples images one by one.

    Returns:
      None where no image has votes; else, over the images with votes,

      'against': for 'given' and for `RULE` the number of images with such a label, the accuracy and its
        interval; 'labels_agree', the share of images on which the two labels are the same, of those with
        both;
      'bands': for each of `BANDS` of the agreement (the share of the annotators who chose the most frequent
        answer) the same two accuracies, 'num_examples', the mean 'agreement' and 'one_annotator', how often
        an annotator chose what most of the others did;
      'soft': the mean cross entropy of the model under the annotators' distribution in nats, and 'floor',
        that distribution's own entropy, below which no model can come; over the images that
        'ferplus_votes' keeps.
    """
    voted = np.flatnonzero(votes.any(axis=1))
    if not len(voted):
        return None
    probs, given, votes = probs[voted], given[voted], np.asarray(votes[voted], np.int64)
    groups = np.arange(len(voted)) if groups is None else groups[voted]
    classes = probs.shape[1]
    majority = ferplus.labels(votes, RULE, classes)[0]
    labels = {"given": given, RULE: majority}
    answers = {"given": batch_inference.restrict(probs, len(EMOTIONS)), RULE: probs}
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
            row["against"] = {
                name: _accuracy(answers[name][band], found[band], groups[band])
                for name, found in labels.items()
            }
        bands.append(row)
    return {
        "rule": RULE,
        "num_examples": len(voted),
        "against": {name: _accuracy(answers[name], found, groups) for name, found in labels.items()},
        "labels_agree": float((given == majority)[both].mean()) if both.any() else None,
        "one_annotator": float(annotator.mean()),
        "bands": bands,
        "soft": _soft(probs, votes),
    }


def title(band: dict[str, Any]) -> str:
    """What a band of `compare` is called."""
    if not band["agreement_above"]:
        return f"up to {band['agreement_up_to']:.0%}"
    return f"above {band['agreement_above']:.0%}, up to {band['agreement_up_to']:.0%}"


def one_annotator(votes: np.ndarray) -> np.ndarray:
    """How often an annotator drawn at random chose what most of the others did, float64 [N].

    Args:
      votes: int [N, 10], each row with two votes or more; the first of the most frequent answers counts.
    """
    found = np.zeros(len(votes))
    for column in range(votes.shape[1]):
        others = votes - (np.arange(votes.shape[1]) == column)
        found += votes[:, column] * (others.argmax(axis=1) == column)
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
    entropy = -np.sum(targets * np.log(np.where(targets > 0, targets, 1)), axis=1)
    return {
        "num_examples": int(kept.sum()),
        "cross_entropy": float(-(targets * np.log(probs)).sum(axis=1).mean()),
        "floor": float(entropy.mean()),
    }
