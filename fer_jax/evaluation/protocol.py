"""What a split had to do with the weights that are judged on it, and what may be said of the score."""

import datetime
import fcntl
import json
import os
import pathlib
from typing import Any

import numpy as np

from fer_jax.evaluation import leakage

LEDGER = "test_evaluations.jsonl"


def used_splits(facts: dict[str, Any]) -> list[str]:
    """The splits that had a part in the weights."""
    selection = facts.get("selection")
    return ["train", selection["split"]] if selection else ["train"]


def find_splits(wanted: dict[str, str | None], data: dict[str, Any]) -> dict[str, str]:
    """Which of the splits that weights were made with a dataset holds.

    Args:
      wanted: {name: hash} of the splits, None where it is not known.
      data: facts of the dataset, see `builder.describe`.

    Returns:
      {name: name in the dataset}, for those that are there.
    """
    hashes = {split_hash(data, name): name for name in data["splits"]}
    return {name: hashes[found] for name, found in wanted.items() if found is not None and found in hashes}


def split_hash(data: dict[str, Any] | None, split: str) -> str | None:
    """The hash of a split's labels and pixels, where the facts of a dataset tell it."""
    return (data or {}).get("splits", {}).get(split, {}).get("hash")


def judge(facts: dict[str, Any], copies: np.ndarray | None) -> dict[str, Any]:
    """What the evaluated split had to do with the weights.

    Args:
      facts: of the weights, with 'split' and 'data' of what is evaluated and 'trained_data' of the
        training (see `builder.describe`).
      copies: int8 [N], what each image shares with the splits that had a part (places in
        `leakage.KINDS`); None where that is not known.

    Returns:
      'trained_on_this_split' and 'selected_on_this_split' (bool, None where it is not known); 'copies',
      how many images are identical to one of those splits, how many near one ('identical', 'near'; None
      where it is not known); 'headline', the figure that may be quoted as the score on new faces:
      'accuracy', 'without_near' (the part without copies) or None; 'note', the reason in words.
    """
    selection, split = facts.get("selection"), facts["split"]
    here = split_hash(facts.get("data"), split)
    used = {name: split_hash(facts.get("trained_data"), name) for name in used_splits(facts)}
    same = {name for name, found in used.items() if found is not None and found == here}
    known = here is not None and None not in used.values()
    trained = "train" in same
    selected = bool(selection) and selection["split"] in same
    counts = count_copies(copies)
    headline = None
    if known and not trained and not selected and counts is not None:
        headline = "without_near" if any(counts.values()) else "accuracy"
        if (copies > 0).all():  # nothing is left
            headline = None
    note = _note(facts, trained, selected, known, counts)
    if headline is None and not note.startswith("No headline"):
        note = f"No headline: all images of `{split}` have copies among those of the training."
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
    if selected:
        return (
            f"No headline: selected on this split. Of all evaluations of the run on `{split}` this "
            f"checkpoint's {selection['metric']} was the best, so the figures are optimistic."
        )
    if not known:
        return (
            "No headline: the weights do not tell which images they were trained and selected on, so whether "
            f"`{split}` had a part in them is not known."
        )
    text = f"`{split}` had no part in the training"
    text += f", nor in the selection, which was on `{selection['split']}`." if selection else "."
    if counts is None:
        return (
            f"No headline: {text} But whether its images have copies among those of the training is not "
            "known; --training_data tells."
        )
    if not any(counts.values()):
        return f"{text} None of its images has a copy there."
    return (
        f"{text} But {counts['identical']:,} of its images stand there pixel for pixel and "
        f"{counts['near']:,} nearly so: the headline is the figure without them."
    )


def record_test(folder: pathlib.Path, entry: dict[str, Any]) -> int | None:
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
