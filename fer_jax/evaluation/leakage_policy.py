"""Determines how the training data leaks into an evaluation, and which score to report."""

import datetime
import fcntl
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from fer_jax import io_utils
from fer_jax.evaluation import leakage
from fer_jax.pretrained import registry
from fer_jax.pretrained.weights_file import CHECKPOINTS

LEDGER = "test_evaluations.jsonl"


class Used(NamedTuple):
    """A split that influenced weights, directly or through their ancestors."""

    split: str  # name of the split in its dataset
    hash: str | None  # hash of its labels and pixels, None if unknown
    trained: bool  # True if it was trained on, False if its scores selected weights or steered training


def used_splits(metadata: dict[str, Any]) -> list[Used]:
    """Returns the splits that influenced weights.

    Args:
      metadata: metadata of the weights: 'trained_data' (see `read.describe`), 'selection', 'steered_by' (the
        split whose scores lowered the learning rate or stopped training), and 'ancestors', the same for the
        runs that the weights are derived from (initialization, teachers), with 'data' instead of
        'trained_data'.
    """
    found = []
    for one in ({"data": metadata.get("trained_data")} | _steering(metadata), *metadata.get("ancestors", ())):
        data = one.get("data")
        found.append(Used("train", split_hash(data, "train"), True))
        names = ((one.get("selection") or {}).get("split"), one.get("steered_by"))
        for name in dict.fromkeys(filter(None, names)):
            found.append(Used(name, split_hash(data, name), False))
    return found


def _steering(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: metadata.get(key) for key in ("selection", "steered_by")}


def inherit(metadata: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
    """Adds a parent (initial weights or a teacher) and its ancestors to the metadata of weights."""
    ancestors = [
        *metadata.get("ancestors", ()),
        {"data": parent.get("data")} | _steering(parent),
        *parent.get("ancestors", ()),
    ]
    annotations = dict.fromkeys([*metadata["annotations"], *parent.get("annotations", ())])
    return metadata | {"ancestors": ancestors, "annotations": list(annotations)}


def find_splits(wanted: Iterable[str | None], data: dict[str, Any]) -> dict[str, str]:
    """Returns {hash: split name} for the hashes that a dataset (see `read.describe`) contains."""
    hashes = {split_hash(data, name): name for name in data["splits"]}
    return {found: hashes[found] for found in wanted if found is not None and found in hashes}


def split_hash(data: dict[str, Any] | None, split: str) -> str | None:
    """Returns the hash of a split's labels and pixels, None if unknown."""
    return (data or {}).get("splits", {}).get(split, {}).get("hash")


def assess(metadata: dict[str, Any], copies: np.ndarray | None) -> dict[str, Any]:
    """Returns how the evaluated split influenced the weights, and which score may be reported.

    Args:
      metadata: metadata of the weights, as in `used_splits`, with 'split' and 'data' of the evaluation.
      copies: int8 [N], the closest match of each image in the splits that influenced the weights (indices
        into `leakage.KINDS`); None if unknown.

    Returns:
      'trained_on_this_split' and 'selected_on_this_split' (bool, None if unknown); 'copies', the
      numbers of images with an 'identical' and a 'near' duplicate in those splits (None if unknown);
      'headline', the score to report for new faces: 'accuracy', 'without_near' (without images that have a
      duplicate), or None; 'note', the reason.
    """
    used, here = used_splits(metadata), split_hash(metadata.get("data"), metadata["split"])
    known = here is not None and all(one.hash is not None for one in used)
    trained, selected = (
        here is not None and any(one.hash == here and one.trained == way for one in used)
        for way in (True, False)
    )
    headline, note = _headline(metadata, trained, selected, known, copies)
    return {
        "trained_on_this_split": trained if known else None,
        "selected_on_this_split": selected if known else None,
        "copies": count_copies(copies),
        "headline": headline,
        "note": note,
    }


def count_copies(copies: np.ndarray | None) -> dict[str, int] | None:
    """Counts images int8 [N] by `leakage.KINDS`, without the first; None for None."""
    if copies is None:
        return None
    return {kind: int((copies == i).sum()) for i, kind in enumerate(leakage.KINDS) if i}


def _headline(
    metadata: dict[str, Any], trained: bool, selected: bool, known: bool, copies: np.ndarray | None
) -> tuple[str | None, str]:
    """Returns 'headline' and 'note' of `assess`."""
    split, selection, counts = metadata["split"], metadata.get("selection"), count_copies(copies)
    if trained:
        reason = "the model was trained on this split, so the metrics say nothing about new faces."
    elif (
        selected
        and selection
        and split_hash(metadata["trained_data"], selection["split"]) == split_hash(metadata["data"], split)
    ):
        reason = (
            f"selected on this split. This checkpoint has the run's best {selection['metric']} on `{split}`, "
            "so the metrics are optimistic."
        )
    elif selected:
        reason = (
            "scores on this split steered training, or selected its initial weights or teachers, so the "
            "metrics are optimistic."
        )
    elif not known:
        reason = (
            "the weights do not record the data that they were trained and selected on, so it is unknown "
            f"whether `{split}` influenced them."
        )
    elif counts is None or copies is None:
        reason = (
            f"the weights were neither trained nor selected on `{split}`, but it is unknown whether its "
            "images have duplicates in the training data; give it as --training_data."
        )
    elif sum(counts.values()) == len(copies):
        reason = (
            f"every image of `{split}` has a duplicate in the training or selection data: "
            f"{counts['identical']:,} identical, {counts['near']:,} near."
        )
    else:
        text = f"`{split}` was not used in training"
        text += f" or selection (which used `{selection['split']}`)" if selection else ""
        text += ", nor for initial weights or teachers." if metadata.get("ancestors") else "."
        if not any(counts.values()):
            return "accuracy", f"{text} None of its images has a duplicate there."
        return "without_near", (
            f"{text} But {counts['identical']:,} of its images have an identical and "
            f"{counts['near']:,} a near duplicate there (correlation of at least 0.9), which the headline "
            "excludes."
        )
    return None, f"No headline: {reason}"


def record_test(metadata: dict[str, Any], accuracy: float, what: str) -> int | None:
    """Records an evaluation on the test split in the ledger of the weights; ignores other splits.

    The ledger is in the folder of the run or the weights file or, for a bundled network, in `state_dir`. The
    metadata are of the weights and the evaluation, `what` is a description, such as the kind of test-time
    augmentation.

    Returns:
      The number of evaluations in the ledger; None if nothing is recorded.
    """
    if metadata["split"] != "test":
        return None
    weights = pathlib.Path(metadata["checkpoint"])
    entry = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "weights": weights.name,
        "step": (metadata.get("selection") or {}).get("step"),
        "data_hash": metadata["data_hash"],
        "labels": metadata["labels"],
        "what": what,
        "accuracy": accuracy,
    }
    try:
        with open(_ledger(weights), "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(entry, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return sum(1 for line in file if line.strip())
    except OSError as error:
        print(f"note: this evaluation on test is not recorded: {error}", file=sys.stderr)
        return None


def _ledger(weights: pathlib.Path) -> pathlib.Path:
    """Returns the path of the ledger, and creates its folder.

    Raises:
      OSError: the folder for bundled weights cannot be created.
    """
    if name := registry.name_of(weights):
        folder = io_utils.state_dir() / name
        with io_utils.named_by(f"${io_utils.STATE_VARIABLE}", folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        return folder / LEDGER
    return (weights.parent.parent if weights.parent.name == CHECKPOINTS else weights.parent) / LEDGER
