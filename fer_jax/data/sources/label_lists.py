"""Reads lists of labeled images: RAF-DB, AffectNet, ExpW, and any CSV file of paths and labels."""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_jax.data.csv_file import CsvFile
from fer_jax.data.decoding import PictureError, image_endings, is_system_name, read
from fer_jax.data.sources import classes
from fer_jax.data.sources.record import Record, Source, SourceError, split_name

# Paths of the lists in the archives of the datasets.
PLACES = (
    "list_patition_label.txt", "EmoLabel/list_patition_label.txt", "label.lst", "label/label.lst",
    "training.csv", "validation.csv",
)  # fmt: skip

_RAF_DB = ("list_patition_label.txt", "list_partition_label.txt")  # the first is RAF-DB's own spelling
_PATH = "subdirectory_filepath path pth filepath file_path file filename file_name image image_path img name"
_COLUMNS = {"path": _PATH, "label": "label emotion expression class", "split": "split usage set subset"}
_AFFECTNET_BOX = {"left": "face_x", "top": "face_y", "width": "face_width", "height": "face_height"}
_EXPW = ("path", "face", "top", "left", "right", "bottom", "confidence", "label")
# ExpW numbers its classes as FER2013.
_NUMBERINGS = {"ExpW": classes.FER2013} | {
    dataset: {number: name for number, name in classes.numbered(dataset).items() if name != classes.DROP}
    for dataset in classes.NUMBERINGS
}
_SIDES = ("left", "top", "right", "bottom", "width", "height")
_ENDINGS = ("", "_aligned")  # the second is the suffix of RAF-DB's aligned images
_DEEPEST = 2  # levels of folders that are searched for the images of a list
_ATTEMPTS = 5  # rows of which at least one image must exist


@dataclasses.dataclass(frozen=True)
class LabelList:
    """A list of labeled images."""

    table: CsvFile
    # The dataset whose format the list has, which determines its numbering; None if unknown.
    dataset: str | None
    # Column of each field: 'path', 'label', 'split', 'face' (a number within an image), and the sides of the
    # face's box.
    fields: dict[str, int]
    between_blanks: int = 0  # number of fields if separated by blanks; 0 for a CSV file with a header

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(self.table.path)

    def rows(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields the location of each row, for messages, and its fields; {} if it has too few."""
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
    """Recognizes a list by its name and first row; returns None for other files."""
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
    """Opens the images in lists.

    Paths are relative to the folder of the list, a subfolder, or a sibling folder. The split is in a column,
    in RAF-DB's file names, or in the name of the list, such as validation.csv. Images are cropped to face
    boxes if the list has them.

    Args:
      lists: lists of one dataset.
      where: the file or folder given by the user.
      class_map: from `classes.parse`; takes precedence over names and the dataset's numbers.

    Raises:
      SourceError: a label is unknown, or no image is found.
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
        notes.append(f"the labels are numbers, assumed to be those of {lists[0].dataset}: {order}")
    roots = [_find_images(one) for one in lists]
    for one, (root, _) in zip(lists, roots, strict=True):
        if root != one.path.parent:
            notes.append(f"the images of {one.path.name} are in {root}")
    total = bad + sum(count for name, count in counts.items() if labels[name] is not None)

    def read_all() -> Iterator[Record | PictureError]:
        for one, (root, ending) in zip(lists, roots, strict=True):
            for place, fields in one.rows():
                if not fields.get("label"):
                    yield PictureError(place, "missing fields; expected a path and a label")
                elif (label := labels[fields["label"]]) is not None:
                    try:
                        yield _read(one, fields, label, root, ending, place)
                    except PictureError as error:
                        yield error if error.where == place else PictureError(place, str(error))

    return Source("label_list", str(where), total, read_all, notes)


def _refuse_strangers(
    where: Path, names: set[str], dataset: str | None, numbering: Mapping[str, str]
) -> None:
    """Refuses numbers of other classes than the seven emotions, all in one message."""
    if numbering and (
        strangers := sorted(filter(str.isdigit, names - numbering.keys()), key=lambda name: (len(name), name))
    ):
        emotions = ", ".join(map(" ".join, numbering.items()))
        flags = " ".join(f"--map {name}={classes.DROP}" for name in strangers)
        raise SourceError(
            f"{where}: {dataset}'s seven emotions are {emotions}; leave out the other labels with {flags}, "
            f"or replace {classes.DROP} by an emotion"
        )


def _find_images(one: LabelList) -> tuple[Path, str]:
    """Returns the folder that the paths of a list are relative to, and the suffix of its files."""
    paths = (_local(fields["path"]) for _, fields in one.rows() if fields.get("path"))
    names = list(itertools.islice(paths, _ATTEMPTS))
    start = one.path.absolute().parent
    for folder in itertools.chain(_folders(start), _folders(start.parent)):
        for ending in _ENDINGS:
            if any(_with_ending(folder / name, ending).is_file() for name in names):
                return folder if folder != start else one.path.parent, ending
    raise SourceError(
        f"{one.path}: none of its images, such as {names[0] if names else 'IMAGE'}, is in the list's folder, "
        "a subfolder, or a sibling folder; move the list next to its images"
    )


def _folders(start: Path) -> Iterator[Path]:
    """Yields a folder and its subfolders, breadth first."""
    for depth in range(_DEEPEST + 1):
        for folder in sorted(start.glob("*/" * depth)) if depth else [start]:
            if not any(map(is_system_name, folder.relative_to(start).parts)):
                yield folder


def _local(path: str) -> str:
    return path.replace("\\", "/")


def _with_ending(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.stem}{ending}{path.suffix}") if ending and path.name else path


def _read(
    one: LabelList, fields: Mapping[str, str], label: int, root: Path, ending: str, place: str
) -> Record:
    """Returns the image of a row.

    Raises:
      PictureError: the row's split or box, or the image, is bad.
    """
    name = _local(fields["path"])
    split = split_name(re.split(r"[\W_]", name if one.dataset == "RAF-DB" else one.path.stem)[0])
    if "split" in fields and not (split := split_name(fields["split"])):
        reason = f"the split is {fields['split'][:40]!r}, expected train, validation or test"
        raise PictureError(place, reason)
    image = read(_with_ending(root / name, ending))
    if "left" in fields:
        image = _crop(image, fields, place)
    face = f"#{fields['face']}" if "face" in fields else ""
    return Record(image, label, split, name + face, place)


def _crop(image: np.ndarray, fields: Mapping[str, str], place: str) -> np.ndarray:
    """Crops an image to the box of a row; up to half of the box may be outside the image."""
    sides = {name: value for name, value in fields.items() if name in _SIDES}
    try:
        box = {name: round(float(value)) for name, value in sides.items()}
    except (ValueError, OverflowError) as error:
        raise PictureError(place, f"the face box is {sides}, expected pixels") from error
    left, top = box["left"], box["top"]
    right, bottom = (
        box.get("right", left + box.get("width", 0)),
        box.get("bottom", top + box.get("height", 0)),
    )
    found = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not found.size or 2 * found.shape[0] * found.shape[1] < (right - left) * (bottom - top):
        size = f"{image.shape[1]} x {image.shape[0]}"
        reason = f"the face box, from {left}, {top} to {right}, {bottom}, is outside the image of {size}"
        raise PictureError(place, f"{reason}; is the image already cropped?")
    return np.ascontiguousarray(found)
