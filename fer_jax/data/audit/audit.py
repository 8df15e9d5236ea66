"""Collects what a source contains, and its defects, for `fer-jax audit`.

Every image is read once. Its label, split, ID, statistics, and a gray 48 x 48 version (for FER2013, the image
itself), which is used to find near duplicates, stay in memory.
"""

import collections
import dataclasses
from typing import Any

import numpy as np
from tqdm import tqdm

from fer_jax.data import fer2013_reference, near_duplicates
from fer_jax.data.decoding import PictureError
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources.record import SPLITS, Record, Source, SourceError
from fer_jax.data.splits import first_appearance, pixel_digest

SAMPLES = 14  # images of each class in the figure
LISTED = 5000  # closest near duplicates in the report
NO_SPLIT = "all"  # name of the split of a source without splits


@dataclasses.dataclass
class Collection:
    """All images of a source."""

    labels: np.ndarray  # int32 [N]
    splits: np.ndarray  # int32 [N], indices into `split_names`
    split_names: list[str]  # the splits that occur, in the order train, validation, test
    ids: list[str]  # N strings
    small: np.ndarray  # uint8 [N, 48, 48], gray
    groups: np.ndarray  # int32 [N], equal for identical images
    mean: np.ndarray  # float64 [N], statistics of each image's pixels, in [0, 1]
    std: np.ndarray
    blank: np.ndarray  # bool [N], all pixels are one color
    # float64 [N], mean absolute difference of horizontal neighbors in `small`, in [0, 1].
    sharpness: np.ndarray
    shapes: dict[str, int]  # number of images of each shape, such as {"48 x 48 gray": 7}
    samples: list[list[np.ndarray]]  # random images of each label at full size, uint8 [H, W] or [H, W, 3]
    bad: list[PictureError]  # rows and images that cannot be used

    def __len__(self) -> int:
        return len(self.labels)


def collect(source: Source) -> Collection:
    """Reads an entire source; collects bad rows and images instead of raising.

    Raises:
      SourceError: no image can be used.
    """
    bad: list[PictureError] = []
    rng = np.random.default_rng(0)
    samples: list[list[np.ndarray]] = [[] for _ in EMOTIONS]
    seen = [0] * len(EMOTIONS)
    rows, small, shapes = [], [], collections.Counter()
    with tqdm(total=source.total, unit=" images", desc="reading", disable=None) as bar:
        for record in source.records(bad.append):
            small.append(near_duplicates.shrink(record.image))
            height, width, *color = record.image.shape
            shapes[f"{height} x {width} {'RGB' if color else 'gray'}"] += 1
            rows.append(_row(record))
            _keep_sample(samples[record.label], seen[record.label], record.image, rng)
            seen[record.label] += 1
            bar.update()
    if not rows:
        first = f", the first one: {bad[0]}" if bad else ""
        raise SourceError(f"{source.path}: no image could be used ({len(bad)} bad{first})")
    labels, splits, ids, digests, mean, std, blank = zip(*rows, strict=True)
    names = [name for name in (*SPLITS, NO_SPLIT) if name in splits]
    images = np.stack(small)
    return Collection(
        labels=np.array(labels, np.int32),
        splits=np.array([names.index(split) for split in splits], np.int32),
        split_names=names,
        ids=list(ids),
        small=images,
        groups=first_appearance(digests),
        mean=np.array(mean),
        std=np.array(std),
        blank=np.array(blank),
        sharpness=np.array([np.abs(np.diff(i.astype(np.int16), axis=1)).mean() for i in images]) / 255,
        shapes=dict(shapes.most_common()),
        samples=samples,
        bad=bad,
    )


def _row(record: Record) -> tuple:
    pixels = record.image.astype(np.float32)
    split = record.split or NO_SPLIT
    mean, std = float(pixels.mean()) / 255, float(pixels.std()) / 255
    blank = bool((record.image == record.image[:1, :1]).all())
    return record.label, split, record.id, pixel_digest(record.image), mean, std, blank


def _keep_sample(kept: list[np.ndarray], seen: int, image: np.ndarray, rng: np.random.Generator) -> None:
    """Keeps each image with the same probability (reservoir sampling)."""
    if seen < SAMPLES:
        kept.append(image)
    elif (place := rng.integers(seen + 1)) < SAMPLES:
        kept[place] = image


def examine(source: Source, data: Collection, near_threshold: float) -> dict[str, Any]:
    """Returns the content of audit.json; `warnings` lists what needs attention."""
    blank = [_name(data, i) for i in np.flatnonzero(data.blank).tolist()]
    report = {
        "source": source.path,
        "kind": source.kind,
        "images": len(data),
        "bad": {
            "count": len(data.bad),
            "records": [{"where": b.where, "reason": b.reason} for b in data.bad],
        },
        "notes": source.notes,
        "splits": {name: _class_counts(data, s) for s, name in enumerate(data.split_names)},
        "shapes": data.shapes,
        "pixels": _pixel_statistics(data),
        "blank": {"count": len(blank), "images": blank},
        "identical": _identical(data),
        "near": _near(data, near_threshold),
    }
    report["official"] = fer2013_reference.compare(report)
    report["warnings"] = _warnings(report)
    return report


def _class_counts(data: Collection, split: int) -> dict[str, Any]:
    counts = np.bincount(data.labels[data.splits == split], minlength=len(EMOTIONS))
    shares = {name: round(float(n / counts.sum()), 4) for name, n in zip(EMOTIONS, counts, strict=True)}
    return {
        "count": int(counts.sum()),
        "class_counts": dict(zip(EMOTIONS, counts.tolist(), strict=True)),
        "class_shares": shares,
    }


def _pixel_statistics(data: Collection) -> dict[str, Any]:
    """Returns pixel statistics of each split and class; all images have equal weight."""

    def of(chosen: np.ndarray) -> dict[str, float]:
        mean = data.mean[chosen].mean()
        square = (data.std[chosen] ** 2 + data.mean[chosen] ** 2).mean()
        numbers = {"mean": mean, "std": (square - mean**2) ** 0.5}
        numbers["sharpness"] = data.sharpness[chosen].mean()
        return {name: round(float(value), 5) for name, value in numbers.items()}

    of_split = {name: of(data.splits == s) for s, name in enumerate(data.split_names)}
    of_class = {name: of(data.labels == k) for k, name in enumerate(EMOTIONS) if (data.labels == k).any()}
    return {"splits": of_split, "classes": of_class}


def _name(data: Collection, index: int) -> dict[str, str]:
    split, label = data.split_names[data.splits[index]], EMOTIONS[data.labels[index]]
    return {"id": data.ids[index], "split": split, "label": label}


def _identical(data: Collection) -> dict[str, Any]:
    """Finds groups of identical images within and across splits, and those with several labels."""
    order = np.argsort(data.groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(data.groups[order])) + 1)
    groups = [m for m in members if len(m) > 1]
    places = collections.Counter(
        " + ".join(data.split_names[s] for s in np.unique(data.splits[m])) for m in groups
    )
    conflicting = [len(np.unique(data.labels[m])) > 1 for m in groups]
    present = np.zeros((len(members), len(data.split_names)), int)
    np.add.at(present, (data.groups, data.splits), 1)
    has_copy = present[data.groups] > 0
    has_copy[np.arange(len(data)), data.splits] = present[data.groups, data.splits] > 1
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "groups_by_splits": dict(places.most_common()),
        "conflicting_groups": sum(conflicting),
        "images_with_copy": _by_split(data, has_copy),
        "members": [
            {"conflict": conflict, "images": [_name(data, i) for i in m]}
            for m, conflict in zip(groups, conflicting, strict=True)
        ],
    }


def _by_split(data: Collection, has: np.ndarray) -> dict[str, dict[str, int]]:
    """Returns {split: {other: images of the split with a duplicate in the other}} from bool [N, splits]."""
    return {
        name: dict(zip(data.split_names, has[data.splits == s].sum(axis=0).tolist(), strict=True))
        for s, name in enumerate(data.split_names)
    }


def _near(data: Collection, threshold: float) -> dict[str, Any]:
    """Counts near duplicates; identical images count in `images_with_copy` only."""
    has_copy = np.zeros((len(data), len(data.split_names)), bool)
    touched = np.zeros(len(data), bool)
    pairs = agreeing = 0
    across = collections.Counter()
    best: list[tuple[float, int, int]] = []
    for first, second, values in near_duplicates.near_pairs(data.small, threshold, progress=True):
        has_copy[first, data.splits[second]] = has_copy[second, data.splits[first]] = True
        other = data.groups[first] != data.groups[second]
        first, second, values = first[other], second[other], values[other]
        touched[first] = touched[second] = True
        pairs += len(first)
        agreeing += int((data.labels[first] == data.labels[second]).sum())
        for one, other in zip(data.splits[first].tolist(), data.splits[second].tolist(), strict=True):
            across[" + ".join(data.split_names[s] for s in sorted({one, other}))] += 1
        best += zip(values.tolist(), first.tolist(), second.tolist(), strict=True)
        best = sorted(best, reverse=True)[:LISTED]
    return {
        "threshold": threshold,
        "pairs": pairs,
        "images": int(touched.sum()),
        "pairs_by_splits": dict(across.most_common()),
        "label_agreement": round(agreeing / pairs, 4) if pairs else None,
        "images_with_copy": _by_split(data, has_copy),
        "closest": [
            {"correlation": round(value, 4), "images": [_name(data, a), _name(data, b)]}
            for value, a, b in best
        ],
    }


def _warnings(report: dict[str, Any]) -> list[str]:
    found = list(report["official"]["differences"])
    if bad := report["bad"]["count"]:
        found.append(f"unusable rows or images: {bad}; fer-jax prepare --skip_bad leaves them out")
    if blank := report["blank"]["count"]:
        found.append(f"blank images (a single gray level or color): {blank}")
    identical, near = report["identical"], report["near"]
    for split, copies in identical["images_with_copy"].items():
        near_copies = near["images_with_copy"][split].get("train", 0)
        if split != "train" and near_copies:
            share = near_copies / report["splits"][split]["count"]
            found.append(
                f"{split} images with an identical duplicate in train: {copies['train']}; with an "
                f"identical or near duplicate: {near_copies} ({share:.1%}). They inflate scores on {split}"
            )
    if NO_SPLIT in report["splits"] and near["images"]:
        found.append(
            f"images with a near duplicate: {near['images']:,} ({near['images'] / report['images']:.1%}). "
            "fer-jax prepare keeps only identical images in one split: near duplicates of test images will "
            "be in train, and inflate scores"
        )
    if conflicts := identical["conflicting_groups"]:
        found.append(f"groups of identical images with different labels: {conflicts}")
    for split, row in report["splits"].items():
        if empty := [name for name, n in row["class_counts"].items() if not n]:
            found.append(f"{split} has no images of: {', '.join(empty)}")
    return found
