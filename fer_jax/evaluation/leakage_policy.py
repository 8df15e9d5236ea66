"""What a split had to do with the weights that are judged on it, and what may be said of the score."""

import dataclasses
import datetime
import fcntl
import json
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from fer_jax.evaluation import leakage
from fer_jax.weights_file import CHECKPOINTS

LEDGER = "test_evaluations.jsonl"


@dataclasses.dataclass(frozen=True)
class Used:
    """A split that had a part in weights, or in weights that these began with.

    Attributes:
      split: its name in the dataset of that training.
      hash: of its labels and pixels, None where it is not known.
      trained: whether it was trained on; else its scores selected weights, or steered the training.
    """

    split: str
    hash: str | None
    trained: bool


def used_splits(facts: dict[str, Any]) -> list[Used]:
    """The splits that had a part in weights.

    Args:
      facts: of the weights: 'trained_data' (see `builder.describe`), 'selection', 'steered_by' (a split's
        name, where its scores lowered the rate or ended the training) and 'ancestors', the same of the
        trainings that the weights come from (began with or learnt from), which name their data 'data'.
    """
    found = []
    for one in ({"data": facts.get("trained_data")} | _part(facts), *facts.get("ancestors", ())):
        found.append(Used("train", split_hash(one["data"], "train"), True))
        judges = ((one.get("selection") or {}).get("split"), one.get("steered_by"))
        for name in dict.fromkeys(filter(None, judges)):
            found.append(Used(name, split_hash(one["data"], name), False))
    return found


def _part(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: facts.get(key) for key in ("selection", "steered_by")}


def inherit(facts: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
    """The facts of weights that come from others: what had a part in those has a part in them.

    Args:
      facts: of the new weights.
      parent: of those that they begin with or learn from, see `weights_file.load_weights`.
    """
    line = [
        *facts.get("ancestors", ()),
        {"data": parent.get("data")} | _part(parent),
        *parent.get("ancestors", ()),
    ]
    annotations = dict.fromkeys([*facts["annotations"], *parent.get("annotations", ())])
    return facts | {"ancestors": line, "annotations": list(annotations)}


def find_splits(wanted: Iterable[str], data: dict[str, Any]) -> dict[str, str]:
    """Which splits a dataset holds: {hash: name in the dataset}.

    Args:
      wanted: their hashes.
      data: facts of the dataset, see `builder.describe`.
    """
    hashes = {split_hash(data, name): name for name in data["splits"]}
    return {found: hashes[found] for found in wanted if found in hashes}


def split_hash(data: dict[str, Any] | None, split: str) -> str | None:
    """The hash of a split's labels and pixels, where the facts of a dataset tell it."""
    return (data or {}).get("splits", {}).get(split, {}).get("hash")


def assess(facts: dict[str, Any], copies: np.ndarray | None) -> dict[str, Any]:
    """What the evaluated split had to do with the weights.

    Args:
      facts: of the weights, as `used_splits` takes them, with 'split' and 'data' of what is evaluated.
      copies: int8 [N], what each image shares with the splits that had a part (places in
        `leakage.KINDS`); None where that is not known.

    Returns:
      'trained_on_this_split' and 'selected_on_this_split' (bool, None where it is not known); 'copies',
      how many images are identical to one of those splits, how many near one ('identical', 'near'; None
      where it is not known); 'headline', the figure that may be quoted as the score on new faces:
      'accuracy', 'without_near' (the part without copies) or None; 'note', the reason in words.
    """
    split, used = facts["split"], used_splits(facts)
    here = split_hash(facts.get("data"), split)
    same = [one for one in used if one.hash is not None and one.hash == here]
    known = here is not None and all(one.hash is not None for one in used)
    trained = any(one.trained for one in same)
    selected = any(not one.trained for one in same)
    counts = count_copies(copies)
    headline = None
    if known and not trained and not selected and counts is not None:
        headline = "without_near" if any(counts.values()) else "accuracy"
        if (copies > 0).all():  # nothing is left
            headline = None
    note = _note(facts, trained, selected, known, counts)
    if headline is None and not note.startswith("No headline"):
        note = (
            f"No headline: every image of `{split}` stands among those of the training or selection: "
            f"{counts['identical']:,} pixel for pixel, {counts['near']:,} nearly so."
        )
    return {
        "trained_on_this_split": trained if known else None,
        "selected_on_this_split": selected if known else None,
        "copies": counts,
        "headline": headline,
        "note": note,
    }


def count_copies(copies: np.ndarray | None) -> dict[str, int] | None:
    """How many of the images int8 [N] are of each of `leakage.KINDS` but the first; None of None."""
    if copies is None:
        return None
    return {kind: int((copies == i).sum()) for i, kind in enumerate(leakage.KINDS) if i}


def _note(
    facts: dict[str, Any], trained: bool, selected: bool, known: bool, counts: dict[str, int] | None
) -> str:
    split, selection = facts["split"], facts.get("selection")
    if trained:
        return "No headline: the model was trained on this split; the figures say nothing about new faces."
    if (
        selected
        and selection
        and split_hash(facts["trained_data"], selection["split"]) == split_hash(facts["data"], split)
    ):
        return (
            f"No headline: selected on this split. Of all evaluations of the run on `{split}` this "
            f"checkpoint's {selection['metric']} was the best, so the figures are optimistic."
        )
    if selected:
        return (
            "No headline: the scores on this split steered the training, or selected the weights that it "
            "began with or learnt from, so the figures are optimistic."
        )
    if not known:
        return (
            "No headline: the weights do not tell which images they were trained and selected on, so whether "
            f"`{split}` had a part in them is not known."
        )
    if counts is None:
        return (
            f"No headline: `{split}` is not one of the splits that the weights were trained and selected on, "
            "but whether its images have copies there is not known; --training_data tells."
        )
    text = f"`{split}` had no part in the training"
    text += f", nor in the selection, which was on `{selection['split']}`" if selection else ""
    text += ", nor in that of weights it began with or learnt from." if facts.get("ancestors") else "."
    if not any(counts.values()):
        return f"{text} None of its images has a copy there."
    return (
        f"{text} But {counts['identical']:,} of its images stand there pixel for pixel and "
        f"{counts['near']:,} nearly so (correlation of 0.9 or more): the headline is the figure without them."
    )


def _append(folder: pathlib.Path, entry: dict[str, Any]) -> int | None:
    """Notes an evaluation on the test split in the ledger of a run.

    Args:
      folder: of the weights.
      entry: what to note; the time (UTC) is added.

    Returns:
      How many evaluations the ledger holds now; None where it cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with open(folder / LEDGER, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps({"time": now} | entry, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return sum(1 for line in file if line.strip())
    except OSError:
        return None


def record_test(facts: dict[str, Any], accuracy: float, what: str) -> int | None:
    """Notes an evaluation on the test split in the ledger beside the weights; none of another split.

    Args:
      facts: of the weights and of what they are judged on.
      accuracy: that was found.
      what: was evaluated, such as a kind of test-time augmentation.

    Returns:
      How many evaluations the ledger holds now; None where none is noted.
    """
    if facts["split"] != "test":
        return None
    weights = pathlib.Path(facts["checkpoint"])
    folder = weights.parent.parent if weights.parent.name == CHECKPOINTS else weights.parent
    entry = {
        "weights": weights.name,
        "step": (facts.get("selection") or {}).get("step"),
        "data_hash": facts["data_hash"],
        "labels": facts["labels"],
        "what": what,
        "accuracy": accuracy,
    }
    number = _append(folder, entry)
    if number is None:
        print(f"note: cannot write {folder / LEDGER}: this evaluation is not counted", file=sys.stderr)
    return number
