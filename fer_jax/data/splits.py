"""Splits that do not leak, and a training split without blanks and duplicates."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from fer_jax.data.faces import Faces

_BLOCK = 1024  # images in memory together, of streamed splits


def duplicate_groups(images: np.ndarray) -> np.ndarray:
    """Returns int32 [N]: images with equal numbers, in order of first appearance, are pixel-identical.

    Args:
      images: uint8 [N, H, W, C], or an object with `shape` and NumPy-style indexing.
    """
    digests = (pixel_digest(image) for block in blocks(images) for image in block)
    return first_appearance(digests)


def pixel_digest(image: np.ndarray) -> bytes:
    """Returns 16 bytes that only images of the same shape and pixels share."""
    shape = ",".join(map(str, image.shape)).encode()
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16, key=shape).digest()


def first_appearance(keys: Iterable[Hashable]) -> np.ndarray:
    """Returns int32 [N]: equal keys get equal numbers, counted in order of first appearance."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int32)


def blank_mask(images: np.ndarray) -> np.ndarray:
    """Returns bool [N]: whether all pixels of images uint8 [N, H, W, C] are one color."""
    masks = [(block == block[:, :1, :1]).all(axis=(1, 2, 3)) for block in blocks(images)]
    return np.concatenate(masks) if masks else np.zeros(0, bool)


def blocks(images: np.ndarray) -> Iterable[np.ndarray]:
    """Yields the images [N, ...] in parts of bounded size, in order; for splits that stay on disk."""
    for start in range(0, images.shape[0], _BLOCK):
        yield images[np.arange(start, min(start + _BLOCK, images.shape[0]))]


def stratified_group_split(
    labels: np.ndarray, groups: np.ndarray, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Splits images at random: no group in two splits, and each class's share in every split.

    A group belongs to its most frequent class. Class by class, the groups are shuffled, and each, the
    largest first, goes to the split that lacks most images of that class. Where groups are small
    (duplicates), a split's share of a class is exact to within a group.

    Args:
      labels: int [N].
      groups: int [N]; see `duplicate_groups`.
      fractions: the share of each split, above 0, summing to 1.
      seed: the same seed gives the same splits.

    Returns:
      Sorted indices int64 [M] for each name in `fractions`.

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
    """Drops blank images of a training split and merges pixel-identical ones.

    Merged duplicates become one face, at the place of the first and with its id. Its targets are the mean
    of theirs, its label the class of the largest target; where several are largest, the first face's label
    if it is among them, else the lowest id. Its votes are the sum of theirs.

    Returns:
      The remaining faces, in their order, and how many were removed: {"blank": n, "twin": n}, where "twin"
      (the name in stored metadata) counts duplicates.
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
    # A tie must not depend on rounding: targets that equal the largest to within float32's error tie.
    largest = targets >= targets.max(axis=1, keepdims=True) - 1e-6
    keeps_label = largest[np.arange(len(first)), merged.labels] | (sizes == 1)
    labels = np.where(keeps_label, merged.labels, largest.argmax(axis=1)).astype(np.int32)
    votes = None
    if faces.votes is not None:
        votes = np.zeros_like(merged.votes)
        np.add.at(votes, groups, faces.votes)
    return Faces(merged.images, labels, targets, merged.ids, votes)
