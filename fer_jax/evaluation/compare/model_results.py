"""The inputs of a comparison: models of any framework, by their predictions on the same images."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fer_jax import batch_inference
from fer_jax.data.emotions import CONTEMPT, EMOTIONS, class_names
from fer_jax.evaluation import predictions_file, run_info

REPORT, PREDICTIONS = "report.json", "predictions.csv"
METADATA, STORED = "facts.json", "predictions.csv.gz"  # of a stored result, see `result_store`
_SEED = re.compile(r"seed[_-]?\d+", re.IGNORECASE)


@dataclasses.dataclass
class ModelResult:
    """One model on one split.

    Attributes:
      name: unique within the comparison.
      path: of the file of predictions, for messages.
      predictions: all of them; labels, groups and copies are None if unknown.
      metadata: as `report.write_report` takes it, and 'run': {'seconds'} of the training;
        {} for a plain file of predictions.
      notes: on changes to its predictions.
    """

    name: str
    path: pathlib.Path
    predictions: predictions_file.Predictions
    metadata: dict[str, Any]
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Split:
    """The images of a dataset's split.

    Attributes:
      ids: N names.
      labels: int [N].
      groups: int [N], equal for identical images.
      copies: returns int8 [N], see `leakage.find_duplicates`; called only if they are needed.
    """

    ids: Sequence[str]
    labels: np.ndarray
    groups: np.ndarray
    copies: Callable[[], np.ndarray]


def load(paths: Sequence[os.PathLike | str], split: Split | None = None) -> list[ModelResult]:
    """Reads the models of a comparison and puts their images into one order.

    Args:
      paths: directories of runs, folders of reports, stored results, or CSV files with a column id and one
        for each class.
      split: completes, by id, files that lack labels, groups or copies.

    Returns:
      One for each path. Images, labels, groups and classes are the same for all; an eighth class that some of
      them lack is ruled out and the other probabilities are renormalized.

    Raises:
      FileNotFoundError: a path has nothing to compare.
      ValueError: a file cannot be read, has no labels, or has other images or labels than the rest; the
        message names the file, the row if there is one, and what to do.
    """
    files = [find(path) for path in paths]
    if len(set(files)) != len(files):
        again = next(file for file in files if files.count(file) > 1)
        raise ValueError(f"{again} is given twice: a model is not compared with itself")
    found = [_read(file, name) for file, name in zip(files, names(files), strict=True)]
    for model in found:
        if split is not None:
            _complete(model, split)
        if model.predictions.labels is None:
            raise ValueError(
                f"{model.path} has no labels: give it a column label, or name the dataset that it "
                "predicts by the --data and --split of fer-jax compare"
            )
    for model in found[1:]:
        _put_in_order(model, found[0])
    _share_groups(found)
    _share_classes(found)
    return found


def find(path: os.PathLike | str) -> pathlib.Path:
    """Returns the file of predictions of a run, a report, or a stored result, or the file itself.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the path holds weights.
    """
    path = pathlib.Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        raise ValueError(
            f"{path} holds weights, not predictions: give the --out of fer-jax evaluate for them"
        )
    for place in (path, path / "report" / PREDICTIONS, path / PREDICTIONS, path / STORED):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"there are no predictions at {path}: expected a run's directory (which gets report/ at its end), "
        f"the folder of a report ({PREDICTIONS}), a stored result ({STORED}) or a CSV file"
    )


def names(files: Sequence[pathlib.Path]) -> list[str]:
    """Returns a name for each file of predictions: the shortest end of its path that is unique.

    A folder such as seed_0 is named with the one above it. Files that would have the same name
    (x/predictions.csv and x.csv) are named by their whole paths.
    """
    parts = []
    for file in files:
        folder = list(file.absolute().parent.parts[1:])
        stem = file.name.removesuffix(".gz").removesuffix(".csv")
        if folder and folder[-1] == "report":
            folder.pop()
        if len(folder) > 1 and _SEED.fullmatch(folder[-1]):
            folder[-2:] = ["/".join(folder[-2:])]
        parts.append(folder if file.name in (PREDICTIONS, STORED) else [*folder, stem])
    short = shorten(parts)
    return [str(file) if short.count(name) > 1 else name for file, name in zip(files, short, strict=True)]


def shorten(paths: Sequence[Sequence[str]]) -> list[str]:
    """Returns the shortest ends of paths, given by their parts, that are unique; all of them if none are."""
    for length in range(1, max(map(len, paths)) + 1):
        found = ["/".join(path[-length:]) for path in paths]
        if len(set(found)) == len(found):
            break
    return found


def read_metadata(file: pathlib.Path) -> dict[str, Any]:
    """Reads the metadata beside a model's file of predictions, {} if there is none.

    Raises:
      ValueError: they cannot be read.
    """
    place = next((p for p in (file.with_name(REPORT), file.with_name(METADATA)) if p.is_file()), None)
    if place is None or file.name not in (PREDICTIONS, STORED):
        return {}
    try:
        metadata = json.loads(place.read_text())
        summary = file.parent.parent / "summary.json"
        if "run" not in metadata and file.parent.name == "report" and summary.is_file():
            metadata["run"] = {
                "seconds": json.loads(summary.read_text())["seconds"],
                "commit": run_info.commits(run_info.read_starts(summary.parent)),
            }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place} or what belongs to it is damaged: {error}") from error
    return metadata


def _read(file: pathlib.Path, name: str) -> ModelResult:
    known = class_names(8 if CONTEMPT in predictions_file.columns(file) else 7)
    return ModelResult(name, file, predictions_file.read(file, known), read_metadata(file))


def _row(model: ModelResult, place: int) -> str:
    return f"{model.path}, row {place + 2}"  # the header is row 1


def _complete(model: ModelResult, split: Split) -> None:
    """Fills in from `split` what is unknown about a model's images, and checks the rest."""
    found = model.predictions
    place = {name: i for i, name in enumerate(split.ids)}
    for row, name in enumerate(found.ids):
        if name not in place:
            raise ValueError(
                f"{_row(model, row)}: the dataset has no image {name!r} in this split; its first id is "
                f"{split.ids[0]!r}"
            )
    if len(found.ids) < len(place):
        missing = sorted(place.keys() - set(found.ids), key=place.__getitem__)
        raise ValueError(
            f"{model.path} lacks {_some(missing)} of the dataset's split: predict every image of it"
        )
    order = np.array([place[name] for name in found.ids])
    labels = np.asarray(split.labels)[order].astype(np.int64)
    if found.labels is None:
        found.labels = labels
    elif (differ := found.labels != labels).any():
        row = int(differ.argmax())
        raise ValueError(
            f"{_row(model, row)}: {found.ids[row]} has the label {found.names[found.labels[row]]}, in the "
            f"dataset {EMOTIONS[labels[row]]} ({differ.sum()} of {len(differ)} rows differ)"
        )
    if found.groups is None:
        found.groups = np.asarray(split.groups)[order]
    if found.copies is None:
        found.copies = split.copies()[order]


def _put_in_order(model: ModelResult, first: ModelResult) -> None:
    """Puts the images of a model into the order of the first's, which must be the same images."""
    ours, theirs = model.predictions, first.predictions
    place, known = {name: i for i, name in enumerate(ours.ids)}, set(theirs.ids)
    missing = [name for name in theirs.ids if name not in place]
    strangers = [name for name in ours.ids if name not in known]
    if missing or strangers:
        raise ValueError(
            f"{model.path} and {first.path} are of different images: "
            f"{_some(missing)} are only in the latter, {_some(strangers)} only in the former. Models are "
            "compared on the same images: evaluate them on one split of one dataset"
        )
    order = np.array([place[name] for name in theirs.ids])
    if (differ := ours.labels[order] != theirs.labels).any():
        at = int(differ.argmax())
        raise ValueError(
            f"{_row(model, int(order[at]))}: {theirs.ids[at]} has the label "
            f"{ours.names[ours.labels[order[at]]]}, in {first.path} {theirs.names[theirs.labels[at]]} "
            f"({differ.sum()} of {len(differ)} images differ): evaluate both by the same labels"
        )
    model.predictions = predictions_file.Predictions(
        list(theirs.ids),
        ours.probs[order],
        ours.labels[order],
        ours.names,
        None if ours.groups is None else ours.groups[order],
        None if ours.copies is None else ours.copies[order],
    )


def _share_groups(found: list[ModelResult]) -> None:
    """Gives all models the groups of the first that has them."""
    groups = next((one.predictions.groups for one in found if one.predictions.groups is not None), None)
    for model in found:
        model.predictions.groups = groups


def _share_classes(found: list[ModelResult]) -> None:
    """Rules out contempt unless all models have that class.

    Raises:
      ValueError: some models lack it, and images have that label.
    """
    if len({len(model.predictions.names) for model in found}) == 1:
        return
    seven = len(EMOTIONS)
    if (found[0].predictions.labels >= seven).any():
        without = next(c for c in found if len(c.predictions.names) == seven)
        raise ValueError(
            f"images have the label {CONTEMPT}, a class that {without.path} lacks: evaluate all models by "
            "seven classes"
        )
    for model in found:
        if len(model.predictions.names) > seven:
            model.predictions.probs = batch_inference.restrict(model.predictions.probs, seven)
            model.predictions.names = list(EMOTIONS)
            model.notes.append(f"{CONTEMPT} ruled out, the other probabilities renormalized")


def _some(ids: Sequence[str]) -> str:
    """Returns the number of ids, and the first of them."""
    words = f"{len(ids):,} images"
    return f"{words} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})" if ids else "no images"
