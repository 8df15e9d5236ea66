"""Splits data without leaks, and removes blank images and duplicates from the training split."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from fer_jax.data.faces import Faces

_BLOCK = 1024  # images of a streamed split in memory


def duplicate_groups(images: np.ndarray) -> np.ndarray:
    """Returns group numbers int32 [N] of identical images uint8 [N, H, W, C], in order of appearance."""
    digests = (pixel_digest(image) for block in blocks(images) for image in block)
    return first_appearance(digests)


def pixel_digest(image: np.ndarray) -> bytes:
    """Returns a 16-byte digest of an image's shape and pixels."""
    shape = ",".join(map(str, image.shape)).encode()
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16, key=shape).digest()


def first_appearance(keys: Iterable[Hashable]) -> np.ndarray:
    """Numbers keys in order of first appearance, int32 [N]."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int32)


def blank_mask(images: np.ndarray) -> np.ndarray:
    """Returns bool [N]: whether all pixels of each image uint8 [N, H, W, C] have one color."""
    masks = [(block == block[:, :1, :1]).all(axis=(1, 2, 3)) for block in blocks(images)]
    return np.concatenate(masks) if masks else np.zeros(0, bool)


def blocks(images: np.ndarray) -> Iterable[np.ndarray]:
    """Yields the images [N, ...] in blocks, in order; for streamed splits."""
    for start in range(0, images.shape[0], _BLOCK):
        yield images[np.arange(start, min(start + _BLOCK, images.shape[0]))]


def stratified_group_split(
    labels: np.ndarray, groups: np.ndarray, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Splits images at random, stratified by class, keeping groups together.

    A group counts as its most frequent class. For each class, groups are shuffled and assigned, the largest
    first, to the split that lacks most images of that class, so each split's share of a class is exact to
    within a group.

    Args:
      labels: int [N].
      groups: int [N]; see `duplicate_groups`.
      fractions: fraction of each split, above 0, with sum 1.
      seed: random seed.

    Returns:
      Sorted indices int64 [M] for each split.

    Raises:
      ValueError: the fractions are not positive or do not sum to 1.
    """
    names, shares = list(fractions), np.array(list(fractions.values()))
    if (shares <= 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"the fractions of the splits must be above 0 and sum to 1, got {dict(fractions)}")
    labels, groups = np.asarray(labels), np.unique(groups, return_inverse=True)[1]
    votes = np.zeros((groups.max(initial=-1) + 1, labels.max(initial=-1) + 1), np.int64)
    np.add.at(votes, (groups, labels), 1)
    group_class, group_size = votes.argmax(1), votes.sum(1)
    split_of_group = np.zeros(len(votes), np.int64)
    rng = np.random.default_rng(seed)
    for label in range(votes.shape[1]):
        members = rng.permutation(np.flatnonzero(group_class == label))
        members = members[np.argsort(-group_size[members], kind="stable")]
        lacking = shares * group_size[members].sum()
        for group in members:
            split = lacking.argmax()
            split_of_group[group] = split
            lacking[split] -= group_size[group]
    split_of_image = split_of_group[groups]
    return {name: np.flatnonzero(split_of_image == i) for i, name in enumerate(names)}


def clean_train(faces: Faces, *, drop_blank: bool, merge_duplicates: bool) -> tuple[Faces, dict[str, int]]:
    """Drops blank images of a training split and merges identical images.

    A merged face has the position and ID of the first. Its target is the mean of the targets, and its votes
    are the sum of the votes. Its label is the class of the largest target; a tie goes to the label of the
    first face, or else to the lowest index.

    Returns:
      The remaining faces, and the number of removed ones: {"blank": n, "twin": n}, where "twin" (the name in
      stored metadata) counts duplicates.
    """
    counts = {"blank": 0, "twin": 0}
    if drop_blank:
        keep = np.flatnonzero(~blank_mask(faces.images))
        counts["blank"] = len(faces) - len(keep)
        if counts["blank"]:
            faces = faces.take(keep)
    if merge_duplicates:
        groups = duplicate_groups(faces.images)
        first = np.unique(groups, return_index=True)[1]
        counts["twin"] = len(faces) - len(first)
        if counts["twin"]:
            faces = _merge(faces, groups, first)
    return faces, counts


def _merge(faces: Faces, groups: np.ndarray, first: np.ndarray) -> Faces:
    merged, sizes = faces.take(first), np.bincount(groups)
    sums = np.zeros((len(first), faces.targets.shape[1]))
    np.add.at(sums, groups, faces.targets.astype(np.float64))
    targets = (sums / sizes[:, None]).astype(np.float32)
    # Targets that equal the largest up to rounding errors tie.
    largest = targets >= targets.max(axis=1, keepdims=True) - 1e-6
    keeps_label = largest[np.arange(len(first)), merged.labels] | (sizes == 1)
    labels = np.where(keeps_label, merged.labels, largest.argmax(axis=1)).astype(np.int32)
    votes = None
    if faces.votes is not None:
        votes = np.zeros_like(merged.votes)
        np.add.at(votes, groups, faces.votes)
    return Faces(merged.images, labels, targets, merged.ids, votes)
