"""Converts FER+ votes, ten for each image of FER2013, to labels.

Barsoum et al., "Training deep networks for facial expression recognition with crowd-sourced label
distribution" (2016, arXiv:1608.01041). Rules keep different numbers of images, so a score on FER+ is
meaningless without its rule. Image counts of Training, PublicTest, and PrivateTest:

    ferplus_majority    25,060  3,199  3,153
    ferplus_argmax8     28,559  3,579  3,573
    ferplus_argmax10    28,389  3,553  3,546

Ties are resolved in favor of the first column in `COLUMNS`, as by argmax.
"""

from collections.abc import Callable

import numpy as np

from fer_jax.data.emotions import class_names
from fer_jax.data.faces import Faces

GIVEN = "given"  # instead of a rule: the dataset's own labels
ANNOTATION = "ferplus"  # name of the votes in manifests and checkpoints

# The order of fer2013new.csv.
COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
_EMOTIONS = 8  # columns; the other two are "unknown" and "not a face"
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
    """Removes single votes, as Microsoft does."""
    return np.where(votes > 1, votes, 0)


def _one_hot(winner: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the winning columns int [N], `LEFT_OUT` where not `chosen`, and one-hot emotions."""
    winner = np.where(chosen & (winner < _EMOTIONS), winner, LEFT_OUT)
    return winner, (winner[:, None] == np.arange(_EMOTIONS)).astype(np.float64)


# Rules take votes int [N, 10] and return the winning column int [N], `LEFT_OUT` for images without a label,
# and the distribution over the 8 emotions float64 [N, 8], 0 for these.
RULES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    # Microsoft's "majority" (microsoft/FERPlus, src/ferplus.py): after dropping single votes, the winner has
    # more than half of the rest, and is neither unknown nor NF.
    "ferplus_majority": _majority,
    # The most frequent of the 8 emotions, for images with a vote for one of them.
    "ferplus_argmax8": _argmax8,
    # The most frequent of all 10 columns; no label if it is unknown or NF.
    "ferplus_argmax10": _argmax10,
    # The distribution over the 8 emotions after dropping single votes, for images where these have more than
    # half of the rest. (Microsoft's "crossentropy" keeps only the top three emotions.)
    "ferplus_votes": _distribution,
}


def labels(votes: np.ndarray, rule: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Applies a rule to votes.

    Args:
      votes: int [N, 10], in the order of `COLUMNS`; rows of zeros are images without votes.
      rule: one of `RULES`.
      num_classes: 8, or 7 to exclude images labeled contempt and renormalize the other distributions.

    Returns:
      Labels int32 [N], indices into `emotions.class_names(num_classes)`, `LEFT_OUT` for excluded images; and
      distributions float32 [N, num_classes], zeros for these.

    Raises:
      ValueError: unknown rule or number of classes.
    """
    if rule not in RULES:
        raise ValueError(f"unknown FER+ rule {rule!r}; there are: {', '.join(RULES)}")
    columns = _COLUMN_OF_CLASS[: len(class_names(num_classes))]
    winner, shares = RULES[rule](np.asarray(votes, np.int64))
    class_of_column = np.full(_EMOTIONS + 1, LEFT_OUT, np.int32)  # LEFT_OUT, -1, indexes the last
    class_of_column[columns] = np.arange(num_classes)
    found = class_of_column[winner]
    shares = np.where(found[:, None] == LEFT_OUT, 0, shares[:, columns])
    targets = shares / np.where(found == LEFT_OUT, 1, shares.sum(axis=1))[:, None]
    return found, targets.astype(np.float32)


def relabel(faces: Faces, rule: str, num_classes: int) -> Faces:
    """Returns the faces that a rule keeps, with its labels and targets; see `labels`.

    Raises:
      ValueError: the faces have no votes; or as `labels`.
    """
    if faces.votes is None:
        raise ValueError(f"the dataset has no FER+ votes, which {rule} labels need")
    found, targets = labels(faces.votes, rule, num_classes)
    keep = np.flatnonzero(found != LEFT_OUT)
    kept = faces.take(keep)
    return Faces(kept.images, found[keep], targets[keep], kept.ids, kept.votes)
