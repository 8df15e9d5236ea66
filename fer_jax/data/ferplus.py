"""Turns FER+'s votes of ten annotators for each image of FER2013 into labels.

Barsoum et al., "Training deep networks for facial expression recognition with crowd-sourced label
distribution" (2016, arXiv:1608.01041). Rules keep different numbers of images, so a score on FER+ has no
meaning without its rule. Official counts of Training, PublicTest, PrivateTest:

    ferplus_majority    25,060  3,199  3,153
    ferplus_argmax8     28,559  3,579  3,573
    ferplus_argmax10    28,389  3,553  3,546

Ties go to the column that comes first in `COLUMNS`, as with an argmax over the file's columns.
"""

from collections.abc import Callable

import numpy as np

from fer_jax.data.emotions import class_names
from fer_jax.data.faces import Faces

GIVEN = "given"  # in place of a rule: the labels that images came with
ANNOTATION = "ferplus"  # the name of these votes in manifests and checkpoints

# The order of fer2013new.csv.
COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
_EMOTIONS = 8  # columns; the other two say that the image shows no clear emotion, or no face
LEFT_OUT = -1

# In the order of `emotions.class_names(8)`.
_COLUMN_OF_CLASS = [
    COLUMNS.index(name)
    for name in ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt")
]


def _majority(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = _without_outliers(votes)
    most = kept.max(axis=1)
    return _one_hot(kept.argmax(axis=1), 2 * most > kept.sum(axis=1))


def _argmax8(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    emotions = votes[:, :_EMOTIONS]
    return _one_hot(emotions.argmax(axis=1), emotions.sum(axis=1) > 0)


def _argmax10(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _one_hot(votes.argmax(axis=1), votes.sum(axis=1) > 0)


def _distribution(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = _without_outliers(votes)
    emotions = kept[:, :_EMOTIONS]
    count = emotions.sum(axis=1)
    chosen = 2 * count > kept.sum(axis=1)
    shares = np.where(chosen[:, None], emotions / np.maximum(count, 1)[:, None], 0)
    return np.where(chosen, emotions.argmax(axis=1), LEFT_OUT), shares


def _without_outliers(votes: np.ndarray) -> np.ndarray:
    """Removes outliers as Microsoft does: single votes do not count."""
    return np.where(votes > 1, votes, 0)


def _one_hot(winner: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the winners (columns int [N]), `LEFT_OUT` where not `chosen`, and one-hot emotions."""
    winner = np.where(chosen & (winner < _EMOTIONS), winner, LEFT_OUT)
    return winner, (winner[:, None] == np.arange(_EMOTIONS)).astype(np.float64)


# Each takes votes int [N, 10] and returns the winning column int [N], `LEFT_OUT` where there is none, and the
# shares of the 8 emotions' columns float64 [N, 8], all 0 there.
RULES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    # Microsoft's "majority" (microsoft/FERPlus, src/ferplus.py): single votes are dropped; the winner has
    # more than half of what remains, and is neither unknown nor NF.
    "ferplus_majority": _majority,
    # The most frequent of the 8 emotions, of every image with a vote for one of them.
    "ferplus_argmax8": _argmax8,
    # The most frequent of all 10 columns, left out where that is unknown or NF.
    "ferplus_argmax10": _argmax10,
    # The distribution over the 8 emotions once single votes are dropped, of the images where the emotions
    # have more than half of what remains. (Microsoft's "crossentropy" keeps the three top emotions only.)
    "ferplus_votes": _distribution,
}


def labels(votes: np.ndarray, rule: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and label distributions by a rule.

    Args:
      votes: int [N, 10], in the order of `COLUMNS`; rows of zeros are images without votes.
      rule: one of `RULES`.
      num_classes: 8, or 7 to leave out the images whose label is contempt; the distributions of the others
        are then renormalized without it.

    Returns:
      Labels int32 [N], ids of `emotions.class_names(num_classes)`, `LEFT_OUT` for images that the rule does
      not keep; and distributions float32 [N, num_classes], zeros for these.

    Raises:
      ValueError: no such rule or number of classes.
    """
    if rule not in RULES:
        raise ValueError(f"there is no FER+ rule {rule!r}; there are: {', '.join(RULES)}")
    columns = _COLUMN_OF_CLASS[: len(class_names(num_classes))]
    winner, shares = RULES[rule](np.asarray(votes, np.int64))
    class_of_column = np.full(_EMOTIONS + 1, LEFT_OUT, np.int32)  # LEFT_OUT, -1, indexes the last
    class_of_column[columns] = np.arange(num_classes)
    found = class_of_column[winner]
    shares = np.where(found[:, None] == LEFT_OUT, 0, shares[:, columns])
    targets = shares / np.where(found == LEFT_OUT, 1, shares.sum(axis=1))[:, None]
    return found, targets.astype(np.float32)


def relabel(faces: Faces, rule: str, num_classes: int) -> Faces:
    """Returns the faces that a rule keeps, in their order, with its labels and targets; see `labels`.

    Raises:
      ValueError: the faces have no votes; or as `labels`.
    """
    if faces.votes is None:
        raise ValueError(f"there are no FER+ votes to take {rule} labels from")
    found, targets = labels(faces.votes, rule, num_classes)
    keep = np.flatnonzero(found != LEFT_OUT)
    kept = faces.take(keep)
    return Faces(kept.images, found[keep], targets[keep], kept.ids, kept.votes)
