"""Reads lists of images and their labels: RAF-DB's, AffectNet's, ExpW's, and any CSV of path and label."""

import collections
import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_jax.data.csv_file import CsvFile
from fer_jax.data.decoding import PictureError, image_endings, is_system_name, read
from fer_jax.data.sources import classes
from fer_jax.data.sources.record import BadRecordError, Record, Source, SourceError, split_name

# Where the datasets' archives have their lists.
PLACES = (
    "list_patition_label.txt", "EmoLabel/list_patition_label.txt", "label.lst", "label/label.lst",
    "training.csv", "validation.csv",
)  # fmt: skip

_RAF_DB = ("list_patition_label.txt", "list_partition_label.txt")  # the first is how RAF-DB spells it
_PATH = "subdirectory_filepath path pth filepath file_path file filename file_name image image_path img name"
_COLUMNS = {"path": _PATH, "label": "label emotion expression class", "split": "split usage set subset"}
_AFFECTNET_BOX = {"left": "face_x", "top": "face_y", "width": "face_width", "height": "face_height"}
_EXPW = ("path", "face", "top", "left", "right", "bottom", "confidence", "label")
# ExpW numbers its classes as FER2013 does.
_NUMBERINGS = {"ExpW": classes.FER2013} | {
    dataset: {number: name for number, name in classes.numbered(dataset).items() if name != classes.DROP}
    for dataset in classes.NUMBERINGS
}
_SIDES = ("left", "top", "right", "bottom", "width", "height")
_ENDINGS = ("", "_aligned")  # RAF-DB's aligned images have the second at the end of their names
_DEEPEST = 2  # folders below that of a list, or beside it, in which its images are looked for
_ATTEMPTS = 5  # rows of which one image has to be there


@dataclasses.dataclass(frozen=True)
class LabelList:
    """A list.

    Attributes:
      table: the file.
      dataset: whose form it has beyond doubt, which tells its numbering; None if it could be any.
      fields: what a row holds at which place; of 'path', 'label', 'split', 'face' (a number within an image),
        and the face's box.
      between_blanks: how many fields a row has if they stand between blanks; 0 for a CSV with a header.
    """

    table: CsvFile
    dataset: str | None
    fields: dict[str, int]
    between_blanks: int = 0

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(self.table.path)

    def rows(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields the place of each row, for messages, and its fields: none if it has too few."""
        needed = max(self.fields.values())
        for number, values in (
            self._between_blanks() if self.between_blanks else self.table.rows(strict=False)
        ):
            fields = {}
            if len(values) > needed:
                fields = {name: values[place].strip() for name, place in self.fields.items()}
            yield f"{self.path.name} row {number}", fields

    def _between_blanks(self) -> Iterator[tuple[int, list[str]]]:
        with self.table.text("replace") as lines:
            for number, line in enumerate(lines, 1):
                if values := line.rsplit(None, self.between_blanks - 1):
                    yield number, values


def recognize(table: CsvFile) -> LabelList | None:
    """Returns the list that a file is, by its name and first row; None if it is no list."""
    words = table.header_line.split()
    starts_with_image = bool(words) and words[0].lower().endswith(image_endings())
    if Path(table.path).name.casefold() in _RAF_DB and len(words) == 2:
        return LabelList(table, "RAF-DB", {"path": 0, "label": 1}, 2)
    if starts_with_image and len(words) == len(_EXPW):
        return LabelList(table, "ExpW", {name: place for place, name in enumerate(_EXPW)}, len(_EXPW))
    if starts_with_image and len(words) == 2:
        return LabelList(table, None, {"path": 0, "label": 1}, 2)
    header = table.header
    found = {
        what: header.index(name)
        for what, names in _COLUMNS.items()
        if (name := next((name for name in names.split() if name in header), None))
    }
    if not {"path", "label"} <= found.keys():
        return None
    is_affectnet = {"subdirectory_filepath", "expression", *_AFFECTNET_BOX.values()} <= set(header)
    if is_affectnet:
        found |= {side: header.index(name) for side, name in _AFFECTNET_BOX.items()}
    return LabelList(table, "AffectNet" if is_affectnet else None, found)


def open_lists(lists: Sequence[LabelList], where: Path, class_map: Mapping[str, str] | None = None) -> Source:
    """Opens the images that lists name.

    Paths are relative to the folder of the list, or to one below or beside it. Splits are those of a column,
    of RAF-DB's file names, or of the list's own name, such as validation.csv. Where a list has boxes of
    faces, the images are cropped to them.

    Args:
      lists: of one dataset.
      where: the file or folder that the user gave.
      class_map: from `classes.parse`; goes before names, and before numbers, which without it are those of
        the list's dataset.

    Raises:
      SourceError: a label is not known, a number of no known dataset, or no image is found.
    """
    class_map = class_map or {}
    counts: collections.Counter[str] = collections.Counter()
    for one in lists:
        counts.update(fields.get("label", "") for _, fields in one.rows())
    bad = counts.pop("", 0)
    if not counts:
        raise SourceError(f"{where} has no row with a path and a label")
    numbering = _NUMBERINGS.get(lists[0].dataset or "", {})
    _refuse_strangers(where, set(counts) - class_map.keys(), lists[0].dataset, numbering)
    labels = classes.labels(where, set(counts), class_map, numbering, noun="label")
    notes = classes.notes(class_map, {classes.key(name): count for name, count in counts.items()})
    if numbers := [name for name in numbering if name in counts and name not in class_map]:
        order = ", ".join(f"{name} {numbering[name]}" for name in numbers)
        notes.append(f"the labels are numbers; they were taken as {lists[0].dataset}'s: {order}")
    roots = [_find_images(one) for one in lists]
    for one, (root, _) in zip(lists, roots, strict=True):
        if root != one.path.parent:
            notes.append(f"the images of {one.path.name} are in {root}")
    total = bad + sum(count for name, count in counts.items() if labels[name] is not None)

    def read_all() -> Iterator[Record | BadRecordError]:
        for one, (root, ending) in zip(lists, roots, strict=True):
            for place, fields in one.rows():
                if not fields.get("label"):
                    yield BadRecordError(place, "too few fields, or no label; expected a path and a label")
                elif (label := labels[fields["label"]]) is not None:
                    try:
                        yield _read(one, fields, label, root, ending, place)
                    except (BadRecordError, PictureError) as error:
                        is_named = isinstance(error, BadRecordError)
                        yield error if is_named else BadRecordError(place, str(error))

    return Source("label_list", str(where), total, read_all, notes)


def _refuse_strangers(
    where: Path, names: set[str], dataset: str | None, numbering: Mapping[str, str]
) -> None:
    """Refuses numbers that a dataset has besides its seven emotions, all at once."""
    if numbering and (
        strangers := sorted(filter(str.isdigit, names - numbering.keys()), key=lambda name: (len(name), name))
    ):
        emotions = ", ".join(map(" ".join, numbering.items()))
        flags = " ".join(f"--map {name}={classes.DROP}" for name in strangers)
        raise SourceError(
            f"{where}: {dataset}'s seven emotions are {emotions}; leave out the other labels by {flags}, or "
            f"name an emotion instead of {classes.DROP}"
        )


def _find_images(one: LabelList) -> tuple[Path, str]:
    """Returns the folder that the paths of a list begin in, and what its files' names have at the end."""
    paths = (_local(fields["path"]) for _, fields in one.rows() if fields.get("path"))
    names = list(itertools.islice(paths, _ATTEMPTS))
    start = one.path.absolute().parent
    for folder in itertools.chain(_folders(start), _folders(start.parent)):
        for ending in _ENDINGS:
            if any(_with_ending(folder / name, ending).is_file() for name in names):
                return folder if folder != start else one.path.parent, ending
    raise SourceError(
        f"{one.path}: none of its images, such as {names[0] if names else 'IMAGE'}, is in the list's folder, "
        "below it or beside it; put the list beside the images that it names"
    )


def _folders(start: Path) -> Iterator[Path]:
    """Yields a folder and those below it, those that are less deep first."""
    level = [start]
    for _ in range(_DEEPEST + 1):
        yield from level
        level = [Path(one.path) for folder in level for one in _subfolders(folder)]


def _subfolders(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            inside = [one for one in found if not is_system_name(one.name) and one.is_dir()]
    except OSError:  # one that cannot be read has none of the images
        return []
    return sorted(inside, key=lambda one: one.name)


def _local(path: str) -> str:
    return path.replace("\\", "/")


def _with_ending(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.stem}{ending}{path.suffix}") if ending and path.name else path


def _read(
    one: LabelList, fields: Mapping[str, str], label: int, root: Path, ending: str, place: str
) -> Record:
    """Returns the image of a row.

    Raises:
      BadRecordError: the row's split or box is bad.
      PictureError: the image is.
    """
    name = _local(fields["path"])
    split = split_name(re.split(r"[\W_]", name if one.dataset == "RAF-DB" else one.path.stem)[0])
    if "split" in fields and not (split := split_name(fields["split"])):
        reason = f"the split is {fields['split'][:40]!r}, expected train, validation or test"
        raise BadRecordError(place, reason)
    image = read(_with_ending(root / name, ending))
    if "left" in fields:
        image = _crop(image, fields, place)
    face = f"#{fields['face']}" if "face" in fields else ""
    return Record(image, label, split, name + face, place)


def _crop(image: np.ndarray, fields: Mapping[str, str], place: str) -> np.ndarray:
    """Returns the part of an image in the box of a row, of which half may lie outside of the image."""
    sides = {name: value for name, value in fields.items() if name in _SIDES}
    try:
        box = {name: round(float(value)) for name, value in sides.items()}
    except (ValueError, OverflowError) as error:
        raise BadRecordError(place, f"the face's box is {sides}, expected numbers of pixels") from error
    left, top = box["left"], box["top"]
    right, bottom = (
        box.get("right", left + box.get("width", 0)),
        box.get("bottom", top + box.get("height", 0)),
    )
    found = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not found.size or 2 * found.shape[0] * found.shape[1] < (right - left) * (bottom - top):
        size = f"{image.shape[1]} x {image.shape[0]}"
        reason = f"the face's box, from {left}, {top} to {right}, {bottom}, is not in the image of {size}"
        raise BadRecordError(place, f"{reason}; is the image cropped already?")
    return np.ascontiguousarray(found)
