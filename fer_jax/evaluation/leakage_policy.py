"""Decides which score may be reported for weights that may have seen the evaluated images."""

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
    """A split that influenced weights, directly or through weights that they come from.

    Attributes:
      split: its name in the dataset of that training.
      hash: of its labels and pixels, None if unknown.
      trained: True if it was trained on; False if its scores selected weights or steered the training.
    """

    split: str
    hash: str | None
    trained: bool


def used_splits(metadata: dict[str, Any]) -> list[Used]:
    """Returns the splits that influenced weights.

    Args:
      metadata: that of the weights: 'trained_data' (see `read.describe`), 'selection', 'steered_by'
        (the split whose scores lowered the learning rate or stopped the training) and 'ancestors', the same
        of the trainings that the weights come from (initialization, teachers), with 'data' in place of
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
    """Returns the metadata of weights that start from, or learn from, a parent's: with its ancestors."""
    ancestors = [
        *metadata.get("ancestors", ()),
        {"data": parent.get("data")} | _steering(parent),
        *parent.get("ancestors", ()),
    ]
    annotations = dict.fromkeys([*metadata["annotations"], *parent.get("annotations", ())])
    return metadata | {"ancestors": ancestors, "annotations": list(annotations)}


def find_splits(wanted: Iterable[str | None], data: dict[str, Any]) -> dict[str, str]:
    """Returns {hash: split name} of those hashes that a dataset (see `read.describe`) contains."""
    hashes = {split_hash(data, name): name for name in data["splits"]}
    return {found: hashes[found] for found in wanted if found is not None and found in hashes}


def split_hash(data: dict[str, Any] | None, split: str) -> str | None:
    """Returns the hash of a split's labels and pixels, None if the dataset's metadata lacks it."""
    return (data or {}).get("splits", {}).get(split, {}).get("hash")


def assess(metadata: dict[str, Any], copies: np.ndarray | None) -> dict[str, Any]:
    """Returns how the evaluated split influenced the weights, and which score may be reported.

    Args:
      metadata: that of the weights, as `used_splits` takes it, with 'split' and 'data' of the evaluation.
      copies: int8 [N], for each image the closest match in the splits that influenced the weights (indices
        into `leakage.KINDS`); None if unknown.

    Returns:
      'trained_on_this_split' and 'selected_on_this_split' (bool, None if unknown); 'copies', how many images
      have an 'identical' and how many a 'near' duplicate in those splits (None if unknown); 'headline', the
      score that may be reported for new faces: 'accuracy', 'without_near' (without images that have a
      duplicate) or None; 'note', the reason in words.
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
    """Counts images int8 [N] of each of `leakage.KINDS` but the first; None of None."""
    if copies is None:
        return None
    return {kind: int((copies == i).sum()) for i, kind in enumerate(leakage.KINDS) if i}


def _headline(
    metadata: dict[str, Any], trained: bool, selected: bool, known: bool, copies: np.ndarray | None
) -> tuple[str | None, str]:
    """Returns 'headline' and 'note' of `assess`."""
    split, selection, counts = metadata["split"], metadata.get("selection"), count_copies(copies)
    if trained:
        reason = "the model was trained on this split; the figures say nothing about new faces."
    elif (
        selected
        and selection
        and split_hash(metadata["trained_data"], selection["split"]) == split_hash(metadata["data"], split)
    ):
        reason = (
            f"selected on this split. This checkpoint has the run's best {selection['metric']} on `{split}`, "
            "so the figures are optimistic."
        )
    elif selected:
        reason = (
            "the scores on this split steered the training, or selected the weights that it started or "
            "learned from, so the figures are optimistic."
        )
    elif not known:
        reason = (
            "the weights do not record the images that they were trained and selected on, so whether "
            f"`{split}` influenced them is not known."
        )
    elif counts is None or copies is None:
        reason = (
            f"the weights were neither trained nor selected on `{split}`, but whether its images have "
            "duplicates in those splits is not known; --training_data tells where to look."
        )
    elif sum(counts.values()) == len(copies):
        reason = (
            f"every image of `{split}` has a duplicate in the splits of the training or selection: "
            f"{counts['identical']:,} identical, {counts['near']:,} near."
        )
    else:
        text = f"`{split}` was not used in the training"
        text += f", nor in the selection, which was on `{selection['split']}`" if selection else ""
        text += ", nor for weights it started or learned from." if metadata.get("ancestors") else "."
        if not any(counts.values()):
            return "accuracy", f"{text} None of its images has a duplicate there."
        return "without_near", (
            f"{text} But {counts['identical']:,} of its images have an identical copy there and "
            f"{counts['near']:,} a near duplicate (correlation of 0.9 or more): the headline is the figure "
            "without them."
        )
    return None, f"No headline: {reason}"


def record_test(metadata: dict[str, Any], accuracy: float, what: str) -> int | None:
    """Records an evaluation on the test split in a ledger of the weights; ignores other splits.

    The ledger is in the folder of the weights' run or file, that of a bundled network in `state_dir`.

    Args:
      metadata: that of the weights and of the evaluation.
      accuracy: the result.
      what: what was evaluated, such as a kind of test-time augmentation.

    Returns:
      The number of evaluations in the ledger; None where none is recorded.
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
        print(f"note: this evaluation on test is not counted: {error}", file=sys.stderr)
        return None


def _ledger(weights: pathlib.Path) -> pathlib.Path:
    """Returns the path of a ledger, in a folder that exists.

    Raises:
      OSError: there is none for bundled weights, and it cannot be created.
    """
    if name := registry.name_of(weights):
        folder = io_utils.state_dir() / name
        with io_utils.named_by(f"${io_utils.STATE_VARIABLE}", folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        return folder / LEDGER
    return (weights.parent.parent if weights.parent.name == CHECKPOINTS else weights.parent) / LEDGER
