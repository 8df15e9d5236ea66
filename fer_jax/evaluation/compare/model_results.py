"""Reads the inputs of a comparison: predictions of models from any framework on the same images."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fer_jax import batch_inference
from fer_jax.data.emotions import CONTEMPT, EMOTIONS, class_names
from fer_jax.evaluation import predictions_file, run_info
from fer_jax.io_utils import read_json

REPORT, PREDICTIONS = "report.json", "predictions.csv"
METADATA, STORED = "facts.json", "predictions.csv.gz"  # files of a stored result, see `result_store`
_SEED = re.compile(r"seed[_-]?\d+", re.IGNORECASE)


@dataclasses.dataclass
class ModelResult:
    """The predictions of a model on a split."""

    name: str  # unique within the comparison
    path: pathlib.Path  # path of the predictions file, for messages
    # The predictions; labels, groups, and copies are None if unknown.
    predictions: predictions_file.Predictions
    # As in `report.write_report`, and 'run': {'seconds'} of training; {} for a plain predictions file.
    metadata: dict[str, Any]
    notes: list[str] = dataclasses.field(default_factory=list)  # changes to the predictions


@dataclasses.dataclass
class Split:
    """The images of a split."""

    ids: Sequence[str]  # N image IDs
    labels: np.ndarray  # int [N]
    groups: np.ndarray  # int [N], equal for identical images
    # Function that returns int8 [N], see `leakage.find_duplicates`; called only if needed.
    copies: Callable[[], np.ndarray]


def load(paths: Sequence[os.PathLike | str], split: Split | None = None) -> list[ModelResult]:
    """Reads the models of a comparison and aligns their images.

    Args:
      paths: run directories, report folders, stored results, or CSV files with a column id and one for each
        class.
      split: adds labels, groups, and copies to files without them, by ID.

    Returns:
      A result for each path, all with the same images, labels, groups, and classes; an eighth class that some
      models lack is dropped, and the other probabilities are renormalized.

    Raises:
      FileNotFoundError: a path has no predictions.
      ValueError: a file cannot be read, has no labels, or has other images or labels than the others; the
        message names the file and, if applicable, the row.
    """
    files = [find(path) for path in paths]
    if len(set(files)) != len(files):
        again = next(file for file in files if files.count(file) > 1)
        raise ValueError(f"{again} is given twice: give each model once")
    found = [_read(file, name) for file, name in zip(files, names(files), strict=True)]
    for model in found:
        if split is not None:
            _complete(model, split)
        if model.predictions.labels is None:
            raise ValueError(
                f"{model.path} has no labels: add a column label, or give the dataset and split with "
                "--data and --split"
            )
    for model in found[1:]:
        _put_in_order(model, found[0])
    _share_groups(found)
    _share_classes(found)
    return found


def find(path: os.PathLike | str) -> pathlib.Path:
    """Returns the predictions file of a run, a report, or a stored result, or the path itself.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the path is a weights file.
    """
    path = pathlib.Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        raise ValueError(f"{path} is a weights file: run fer-jax evaluate on it, and give its --out")
    for place in (path, path / "report" / PREDICTIONS, path / PREDICTIONS, path / STORED):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"there are no predictions at {path}: expected the directory of a finished run (with report/), "
        f"a report folder ({PREDICTIONS}), a stored result ({STORED}), or a CSV file"
    )


def names(files: Sequence[pathlib.Path]) -> list[str]:
    """Returns a name for each predictions file: the shortest unique end of its path.

    A folder such as seed_0 is named with its parent. Files that would have the same name (x/predictions.csv
    and x.csv) are named by their full paths.
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
    """Returns the shortest unique ends of paths, given by their parts; the full paths if not unique."""
    for length in range(1, max(map(len, paths)) + 1):
        found = ["/".join(path[-length:]) for path in paths]
        if len(set(found)) == len(found):
            break
    return found


def read_metadata(file: pathlib.Path) -> dict[str, Any]:
    """Reads the metadata next to a predictions file, {} if there is none.

    Raises:
      ValueError: the metadata cannot be read.
    """
    place = next((p for p in (file.with_name(REPORT), file.with_name(METADATA)) if p.is_file()), None)
    if place is None or file.name not in (PREDICTIONS, STORED):
        return {}
    metadata = read_json(place)
    summary = file.parent.parent / "summary.json"
    if "run" not in metadata and file.parent.name == "report" and summary.is_file():
        metadata["run"] = {
            "seconds": read_json(summary)["seconds"],
            "commit": run_info.commits(run_info.read_starts(summary.parent)),
        }
    return metadata


def _read(file: pathlib.Path, name: str) -> ModelResult:
    known = class_names(8 if CONTEMPT in predictions_file.columns(file) else 7)
    return ModelResult(name, file, predictions_file.read(file, known), read_metadata(file))


def _row(model: ModelResult, place: int) -> str:
    return f"{model.path}, row {place + 2}"  # the header is row 1


def _complete(model: ModelResult, split: Split) -> None:
    """Adds unknown labels, groups, and copies from `split`, and checks known ones."""
    found = model.predictions
    place = {name: i for i, name in enumerate(split.ids)}
    for row, name in enumerate(found.ids):
        if name not in place:
            raise ValueError(
                f"{_row(model, row)}: the split has no image {name!r}; its first id is {split.ids[0]!r}"
            )
    if len(found.ids) < len(place):
        missing = sorted(place.keys() - set(found.ids), key=place.__getitem__)
        raise ValueError(f"{model.path} lacks {_some(missing)} of the split: predict all its images")
    order = np.array([place[name] for name in found.ids])
    labels = np.asarray(split.labels)[order].astype(np.int64)
    if found.labels is None:
        found.labels = labels
    elif (differ := found.labels != labels).any():
        row = int(differ.argmax())
        raise ValueError(
            f"{_row(model, row)}: {found.ids[row]} has the label {found.names[found.labels[row]]}, but in "
            f"the dataset {EMOTIONS[labels[row]]} ({differ.sum()} of {len(differ)} rows differ)"
        )
    if found.groups is None:
        found.groups = np.asarray(split.groups)[order]
    if found.copies is None:
        found.copies = split.copies()[order]


def _put_in_order(model: ModelResult, first: ModelResult) -> None:
    """Reorders the images of a model as those of the first, which must be the same."""
    ours, theirs = model.predictions, first.predictions
    place, known = {name: i for i, name in enumerate(ours.ids)}, set(theirs.ids)
    missing = [name for name in theirs.ids if name not in place]
    strangers = [name for name in ours.ids if name not in known]
    if missing or strangers:
        raise ValueError(
            f"{model.path} and {first.path} have different images: "
            f"{_some(missing)} are only in the latter, {_some(strangers)} only in the former. Evaluate both "
            "on the same split of the same dataset"
        )
    order = np.array([place[name] for name in theirs.ids])
    if (differ := ours.labels[order] != theirs.labels).any():
        at = int(differ.argmax())
        raise ValueError(
            f"{_row(model, int(order[at]))}: {theirs.ids[at]} has the label "
            f"{ours.names[ours.labels[order[at]]]}, but in {first.path} {theirs.names[theirs.labels[at]]} "
            f"({differ.sum()} of {len(differ)} images differ): evaluate both with the same labels"
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
    """Copies the groups of the first model that has them to all."""
    groups = next((one.predictions.groups for one in found if one.predictions.groups is not None), None)
    for model in found:
        model.predictions.groups = groups


def _share_classes(found: list[ModelResult]) -> None:
    """Drops contempt unless all models have that class.

    Raises:
      ValueError: some models lack contempt, and images have that label.
    """
    if len({len(model.predictions.names) for model in found}) == 1:
        return
    seven = len(EMOTIONS)
    if (found[0].predictions.labels >= seven).any():
        without = next(c for c in found if len(c.predictions.names) == seven)
        raise ValueError(
            f"images have the label {CONTEMPT}, a class that {without.path} lacks: evaluate all models with "
            "seven classes"
        )
    for model in found:
        if len(model.predictions.names) > seven:
            model.predictions.probs = batch_inference.restrict(model.predictions.probs, seven)
            model.predictions.names = list(EMOTIONS)
            model.notes.append(f"{CONTEMPT} dropped, other probabilities renormalized")


def _some(ids: Sequence[str]) -> str:
    """Describes images by their number and first IDs."""
    words = f"{len(ids):,} images"
    return f"{words} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})" if ids else "no images"
