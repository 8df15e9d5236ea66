"""Reads image folders: SPLIT/CLASS/..., CLASS/..., and Kaggle's FER2013 (with splits in file names)."""

import collections
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from fer_jax.data.decoding import (
    PictureError,
    describe_endings,
    folder_identity,
    image_endings,
    is_system_name,
    read,
    walk,
)
from fer_jax.data.emotions import UnknownEmotionError, canonical
from fer_jax.data.sources import classes
from fer_jax.data.sources.record import KNOWN_SPLITS, Record, Source, SourceError, split_name

DEEPEST = 3  # levels of folders around a dataset that are searched

_KAGGLE_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_\d+", re.IGNORECASE)
_Entry = tuple[str, int, str | None]  # path relative to the source, label, split


def open_folders(root: Path, class_map: Mapping[str, str] | None = None, splits: str | None = None) -> Source:
    """Lists the images below `root`, whose subfolders determine the layout.

    Class folders are matched by name (see `emotions.canonical`). Folders 0 to 6, all seven, have the order of
    FER2013, unless the path names a dataset in `classes.NUMBERINGS`; other numbers are refused.

    Args:
      root: the folder.
      class_map: from `classes.parse`; takes precedence over names and numbers.
      splits: "folders" or "names", which determine the splits of files with Kaggle's names; default: names,
        because Kaggle's test/ mixes two splits, unless there is a folder for validation.

    Raises:
      SourceError: a folder is neither a split nor a class, or cannot be listed, a mapped class is missing,
        or there is no image.
    """
    class_map, notes = class_map or {}, []
    tops = _names(root)
    if not tops:
        raise SourceError(
            f"{root} has no subfolders{' and is empty' if not any(root.iterdir()) else ''}; "
            f"expected images in SPLIT/CLASS/ or CLASS/ folders, such as {root}/train/happy/1.jpg "
            f"or {root}/happy/1.jpg"
        )
    if not class_map and not any(map(_is_known, tops)) and (inner := _find_dataset(root, tops)):
        raise SourceError(f"there are no split or class folders in {root}: give {inner} as the source")
    parents = [root]  # of the class folders
    if split_tops := [name for name in tops if split_name(name)]:
        if strangers := sorted(set(tops) - set(split_tops)):
            raise SourceError(
                f"{root / strangers[0]} is not a split, but {split_tops[0]} next to it "
                f"is: rename or move it (known splits: {KNOWN_SPLITS})"
            )
        parents += [root / top for top in tops]
        class_folders = {(top, name): split_name(top) for top in tops for name in _names(root / top)}
    else:
        class_folders = {("", name): None for name in tops}
    labels = _labels(root, {name for _, name in class_folders}, notes, class_map)
    given = (*parents, *(root / top / name for top, name in class_folders))
    entered = {folder_identity(folder, _refuse) for folder in given}
    entries, mapped = [], dict.fromkeys(class_map, 0)
    others: collections.Counter[str] = collections.Counter()
    for (top, name), split in class_folders.items():
        files, ignored = _images_below(root, os.path.join(top, name), entered)
        if classes.key(name) in mapped:
            mapped[classes.key(name)] += len(files)
        if labels[name] is not None:
            entries += [(file, labels[name], split) for file in files]
            others += ignored
    if not entries:
        found = f"; found {describe_endings(others)}" if others else ""
        raise SourceError(
            f"no images below {root} (looked in {len(class_folders)} class folders for "
            f"{', '.join(image_endings())}{found})"
        )
    notes += classes.notes(class_map, mapped)
    if others:
        notes.append(f"ignored files without an image extension: {describe_endings(others)}")
    if strays := [folder / name for folder in parents for name in _names(folder, files=True)]:
        notes.append(f"ignored images outside the class folders: {len(strays)}, such as {strays[0]}")
    kind = _kind(entries, splits, notes)
    entries.sort()
    return Source(kind, str(root), len(entries), lambda: _read(root, entries, kind), notes)


def _find_dataset(root: Path, tops: list[str]) -> Path | None:
    """Returns the first folder below `root` whose subfolders are splits or emotions, if any."""
    level = [root / top for top in tops]
    for _ in range(DEEPEST):
        for folder in level:
            if any(map(_is_known, _names(folder))):
                return folder
        level = [folder / name for folder in level for name in _names(folder)]
    return None


def _is_known(name: str) -> bool:
    try:
        return bool(split_name(name) or canonical(name))
    except UnknownEmotionError:
        return False


def _names(folder: Path, *, files: bool = False) -> list[str]:
    """Returns the names of images or subfolders in a folder, without system names."""
    try:
        with os.scandir(folder) as found:
            wanted = [one.name for one in found if (one.is_file() if files else one.is_dir())]
    except OSError as error:
        _refuse(error)
    return sorted(name for name in wanted if not is_system_name(name) and (not files or _is_image(name)))


def _refuse(error: OSError) -> NoReturn:
    raise SourceError(
        f"{error.filename} cannot be listed: {error.strerror}; check its permissions"
    ) from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(image_endings())


def _labels(
    root: Path, names: set[str], notes: list[str], class_map: Mapping[str, str]
) -> dict[str, int | None]:
    """Returns the label of each class folder, None for folders to leave out."""
    numbers = {name for name in names if name.isdigit() and classes.key(name) not in class_map}
    numbering = {}
    if numbers and names == classes.FER2013.keys() and not classes.foreign_numbering(root, names):
        if all(class_map[name] == classes.DROP for name in names - numbers):
            numbering = {name: classes.FER2013[name] for name in sorted(numbers)}
            order = ", ".join(map(" ".join, numbering.items()))
            notes.append(f"the class folders are numbers, assumed to be in the order of FER2013: {order}")
    return classes.labels(root, names, class_map, numbering)


def _images_below(
    root: Path, folder: str, entered: set[tuple[int, int]]
) -> tuple[list[str], collections.Counter[str]]:
    """Returns the paths of images at any depth (relative to `root`), and the extensions of other files."""
    images, others = [], collections.Counter()
    for parent, files in walk(root / folder, entered, _refuse):
        images += [Path(parent, file).relative_to(root).as_posix() for file in files if _is_image(file)]
        others.update(os.path.splitext(file)[1].lower() for file in files if not _is_image(file))
    return images, others


def _kind(entries: list[_Entry], splits: str | None, notes: list[str]) -> str:
    """Determines the kind of source; adds notes about the splits."""
    by_folders = {split for _, _, split in entries}
    by_name = [_kaggle_split(file) for file, _, _ in entries]
    if any(by_name):
        named = splits == "names" or (splits is None and "validation" not in by_folders)
        # Kaggle's test/ includes PublicTest, the validation split.
        odd = sum(
            bool(name and split and name != split and (split, name) != ("test", "validation"))
            for name, (_, _, split) in zip(by_name, entries, strict=True)
        )
        if odd and splits is None:
            winner, other = ("names", "folders") if named else ("folders", "names")
            notes.append(
                f"the names of {odd:,} images (Training_, PublicTest_, PrivateTest_) contradict "
                f"their folders; splits are by {winner} (--splits {other} uses the {other})"
            )
        if named:
            return "kaggle_folders"
    elif by_folders == {"train", "test"}:
        notes.append(
            "the file names have no Training_, PublicTest_ or PrivateTest_ prefix: if this is "
            "FER2013, test/ mixes PublicTest and PrivateTest, which cannot be separated, so all "
            "of it is the test split, and scores are not comparable with PrivateTest scores"
        )
    return "class_folders" if by_folders == {None} else "split_folders"


def _kaggle_split(file: str) -> str | None:
    match = _KAGGLE_NAME.match(os.path.basename(file))
    return split_name(match[1]) if match else None


def _read(root: Path, entries: list[_Entry], kind: str) -> Iterator[Record | PictureError]:
    for file, label, split in entries:
        where = os.fsencode(root / file).decode("utf-8", "backslashreplace")
        try:
            if "\\x" in where and where != str(root / file):
                raise PictureError(where, "the file name is not UTF-8; rename it")
            if kind == "kaggle_folders":
                split = _kaggle_split(file) or split
                if split != "train" and not _kaggle_split(file):
                    reason = (
                        "its name lacks the prefix Training_, PublicTest_, or PrivateTest_ of the other "
                        "files, so its split is unknown; rename or move it"
                    )
                    raise PictureError(where, reason)
            yield Record(read(root / file), label, split, file, where)
        except PictureError as error:
            yield error
