"""What is compared: models of any framework, each by its predictions on the same images."""

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
FACTS, STORED = "facts.json", "predictions.csv.gz"  # of a stored result, see `result_store`
_SEED = re.compile(r"seed[_-]?\d+", re.IGNORECASE)


@dataclasses.dataclass
class ModelResult:
    """One model on one split.

    Attributes:
      name: unique among those that are compared.
      path: of the file of predictions, for messages.
      predictions: in full; labels, groups and copies are None where they are not known.
      facts: what is known of the model and its training, as `report.write_report` takes it, and 'run':
        {'seconds'} of the training; {} for a mere file of predictions.
      notes: what was done to its predictions.
    """

    name: str
    path: pathlib.Path
    predictions: predictions_file.Predictions
    facts: dict[str, Any]
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Split:
    """What is known of the images by themselves.

    Attributes:
      ids: N names.
      labels: int [N].
      groups: int [N], equal for identical images.
      copies: gives int8 [N], see `leakage.find_copies`; called only where they are needed.
    """

    ids: Sequence[str]
    labels: np.ndarray
    groups: np.ndarray
    copies: Callable[[], np.ndarray]


def load(paths: Sequence[os.PathLike | str], split: Split | None = None) -> list[ModelResult]:
    """Reads what is to be compared, and puts all of it in one order of images.

    Args:
      paths: directories of runs, folders of reports, stored results, or CSV files with a column id and one
        for each class.
      split: what files that lack labels, groups or copies are completed from, by id.

    Returns:
      One for each path. Images and labels are the same for all, and so are the groups and the classes; an
      eighth class that not all of them have is ruled out and the rest renormalised.

    Raises:
      FileNotFoundError: nothing to compare is at a path.
      ValueError: a file cannot be read, lacks what no `split` completes, or is of other images or labels;
        the message names the file, the row where there is one, and what to do.
    """
    files = [find(path) for path in paths]
    if len(set(files)) != len(files):
        again = next(file for file in files if files.count(file) > 1)
        raise ValueError(f"{again} is given twice: a model is not compared with itself")
    found = [_read(file, name) for file, name in zip(files, names(files), strict=True)]
    for contender in found:
        if split is not None:
            _complete(contender, split)
        if contender.predictions.labels is None:
            raise ValueError(
                f"{contender.path} has no labels: give it a column label, or name the dataset that it "
                "predicts by the --data and --split of fer-jax compare"
            )
    for contender in found[1:]:
        _put_in_order(contender, found[0])
    _share_groups(found)
    _share_classes(found)
    return found


def find(path: os.PathLike | str) -> pathlib.Path:
    """The file of predictions of a run, a report, a stored result, or the file itself.

    Raises:
      FileNotFoundError: there is none.
      ValueError: these are weights.
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
        f"there are no predictions at {path}: expected a run's directory (which gets report/ at its "
        "end), the "
        f"folder of a report ({PREDICTIONS}), a stored result ({STORED}) or a CSV file"
    )


def names(files: Sequence[pathlib.Path]) -> list[str]:
    """A name for each file of predictions: as much of the end of its path as tells it from the others.

    A folder such as seed_0 comes with the one above it, which says of what. Files whose paths say the same
    (x/predictions.csv and x.csv) are named in full.
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
    shortened = shorten(parts)
    return [
        str(file) if shortened.count(name) > 1 else name for file, name in zip(files, shortened, strict=True)
    ]


def shorten(paths: Sequence[Sequence[str]]) -> list[str]:
    """As much of the ends of paths, given by their parts, as tells them apart: all where nothing does."""
    for length in range(1, max(map(len, paths)) + 1):
        found = ["/".join(path[-length:]) for path in paths]
        if len(set(found)) == len(found):
            break
    return found


def read_facts(file: pathlib.Path) -> dict[str, Any]:
    """What lies beside a file of predictions about its model, {} where nothing does.

    Raises:
      ValueError: it cannot be read.
    """
    place = next((p for p in (file.with_name(REPORT), file.with_name(FACTS)) if p.is_file()), None)
    if place is None or file.name not in (PREDICTIONS, STORED):
        return {}
    try:
        facts = json.loads(place.read_text())
        summary = file.parent.parent / "summary.json"
        if "run" not in facts and file.parent.name == "report" and summary.is_file():
            facts["run"] = {
                "seconds": json.loads(summary.read_text())["seconds"],
                "commit": run_info.commits(run_info.starts(summary.parent)),
            }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place} or what belongs to it is damaged: {error}") from error
    return facts


def _read(file: pathlib.Path, name: str) -> ModelResult:
    known = class_names(8 if CONTEMPT in predictions_file.columns(file) else 7)
    return ModelResult(name, file, predictions_file.read(file, known), read_facts(file))


def _row(contender: ModelResult, place: int) -> str:
    return f"{contender.path}, row {place + 2}"  # the header is row 1


def _complete(contender: ModelResult, split: Split) -> None:
    """Fills in from `split` what is not known of a contender's images, and checks what is."""
    found = contender.predictions
    place = {name: i for i, name in enumerate(split.ids)}
    for row, name in enumerate(found.ids):
        if name not in place:
            raise ValueError(
                f"{_row(contender, row)}: the dataset has no image {name!r} in this split; its ids are such "
                f"as {split.ids[0]!r}"
            )
    if len(found.ids) < len(place):
        missing = sorted(place.keys() - set(found.ids), key=place.get)
        raise ValueError(
            f"{contender.path} lacks {_some(missing)} of the dataset's split: predict every image of it"
        )
    order = np.array([place[name] for name in found.ids])
    labels = np.asarray(split.labels)[order].astype(np.int64)
    if found.labels is None:
        found.labels = labels
    elif (differ := found.labels != labels).any():
        row = int(differ.argmax())
        raise ValueError(
            f"{_row(contender, row)}: {found.ids[row]} has the label {found.names[found.labels[row]]}, "
            "in the "
            f"dataset {EMOTIONS[labels[row]]} ({differ.sum()} of {len(differ)} rows differ)"
        )
    if found.groups is None:
        found.groups = np.asarray(split.groups)[order]
    if found.copies is None:
        found.copies = split.copies()[order]


def _put_in_order(contender: ModelResult, first: ModelResult) -> None:
    """Puts the images of a contender in the order of the first, whose they have to be."""
    ours, theirs = contender.predictions, first.predictions
    place, known = {name: i for i, name in enumerate(ours.ids)}, set(theirs.ids)
    missing = [name for name in theirs.ids if name not in place]
    strangers = [name for name in ours.ids if name not in known]
    if missing or strangers:
        raise ValueError(
            f"{contender.path} and {first.path} are of different images: "
            f"{_some(missing)} are only in the latter, {_some(strangers)} only in the former. Models are "
            "compared on the same images: evaluate them on one split of one dataset"
        )
    order = np.array([place[name] for name in theirs.ids])
    if (differ := ours.labels[order] != theirs.labels).any():
        at = int(differ.argmax())
        raise ValueError(
            f"{_row(contender, int(order[at]))}: {theirs.ids[at]} has the label "
            f"{ours.names[ours.labels[order[at]]]}, in {first.path} {theirs.names[theirs.labels[at]]} "
            f"({differ.sum()} of {len(differ)} images differ): evaluate both by the same labels"
        )
    contender.predictions = predictions_file.Predictions(
        list(theirs.ids),
        ours.probs[order],
        ours.labels[order],
        ours.names,
        None if ours.groups is None else ours.groups[order],
        None if ours.copies is None else ours.copies[order],
    )


def _share_groups(found: list[ModelResult]) -> None:
    """Gives all the groups of the first that knows them."""
    groups = next((c.predictions.groups for c in found if c.predictions.groups is not None), None)
    for contender in found:
        contender.predictions.groups = groups


def _share_classes(found: list[ModelResult]) -> None:
    """Rules out contempt where not all tell it apart.

    Raises:
      ValueError: some do not, and images have that label.
    """
    if len({len(contender.predictions.names) for contender in found}) == 1:
        return
    seven = len(EMOTIONS)
    if (found[0].predictions.labels >= seven).any():
        without = next(c for c in found if len(c.predictions.names) == seven)
        raise ValueError(
            f"images are labelled {CONTEMPT}, which {without.path} does not tell apart: evaluate all models "
            "by seven classes"
        )
    for contender in found:
        if len(contender.predictions.names) > seven:
            contender.predictions.probs = batch_inference.restrict(contender.predictions.probs, seven)
            contender.predictions.names = list(EMOTIONS)
            contender.notes.append(f"{CONTEMPT} ruled out, the other probabilities renormalised")


def _some(ids: Sequence[str]) -> str:
    """How many ids, and the first of them."""
    words = f"{len(ids):,} images"
    return f"{words} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})" if ids else "no images"
