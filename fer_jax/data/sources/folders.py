"""Image folders: SPLIT/CLASS/..., CLASS/..., and Kaggle's FER2013 (file names hold the split)."""

import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
from PIL import Image, ImageOps

from fer_jax.data.emotions import EMOTIONS, UnknownEmotionError, canonical, emotion_id
from fer_jax.data.sources.record import BadRecordError, Record, Source, SourceError, known_splits, split_name

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
# Pillow's names of their formats. It knows more: for one of them it runs another program.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 80_000_000  # a large photograph; a file that declares more is refused before it is decoded

DROP = "drop"  # instead of an emotion, for classes that are left out

_KAGGLE_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_\d+", re.IGNORECASE)
DECODING_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error)  # what Pillow raises
_Entry = tuple[str, int, str | None]  # path relative to the source, label, split


def parse_map(words: Sequence[str]) -> dict[str, str]:
    """What the command line says of class folders that are none of the seven emotions.

    Args:
      words: each CLASS=EMOTION, or CLASS=drop to leave the class out.

    Returns:
      {class, lower case: one of `EMOTIONS` or `DROP`}.

    Raises:
      SourceError: a word is not of that form, names no emotion, or says two things of a class.
    """
    result: dict[str, str] = {}
    for word in words:
        name, equals, emotion = (part.strip() for part in word.partition("="))
        if not (name and equals):
            raise SourceError(
                f"--map {word}: expected CLASS=EMOTION or CLASS={DROP}, such as contempt={DROP}"
            )
        try:
            target = DROP if emotion.casefold() == DROP else canonical(emotion)
        except UnknownEmotionError as error:
            raise SourceError(f"--map {word}: {error}; or {DROP}, to leave the class out") from error
        if result.setdefault(name.casefold(), target) != target:
            raise SourceError(f"--map {word}: {name} was mapped to {result[name.casefold()]} already")
    return result


def open_folders(root: Path, class_map: Mapping[str, str] | None = None) -> Source:
    """Lists the images below `root`; which layout it is shows in the names of its subfolders.

    Class folders are matched by name (see `emotions.canonical`). Folders named 0 to 6, all seven of
    them, are taken in the challenge's order; other numbers say nothing and are refused.

    Args:
      root: the folder.
      class_map: what other class folders are taken for, from `parse_map`; the notes say what it did.

    Raises:
      SourceError: when a folder is neither a split nor an emotion nor mapped or cannot be listed, when a
        mapped one is not there, or when there is no image.
    """
    tops = _subfolders(root)
    if not tops:
        raise SourceError(
            f"{root} has no subfolders{' and is empty' if not any(root.iterdir()) else ''}; "
            f"expected images in SPLIT/CLASS/ or CLASS/ folders, such as {root}/train/happy/1.jpg "
            f"or {root}/happy/1.jpg"
        )
    if len(tops) == 1 and _is_dataset(root / tops[0]) and not _is_known(tops[0]):
        raise SourceError(f"{root} only holds the folder {tops[0]}; give {root / tops[0]} as the source")
    notes: list[str] = []
    parents = [root]  # of the class folders
    if any(split_name(name) for name in tops):
        strangers = [name for name in tops if not split_name(name)]
        if strangers:
            raise SourceError(
                f"{root / strangers[0]} is not a split, but beside it {_first(tops, split_name)} "
                f"is; rename it or move it away (known splits: {known_splits()})"
            )
        parents += [root / top for top in tops]
        classes = {(top, name): split_name(top) for top in tops for name in _subfolders(root / top)}
        kind = "split_folders"
    else:
        classes = {("", name): None for name in tops}
        kind = "class_folders"
    labels = _labels(root, {name for _, name in classes}, notes, class_map or {})
    entered = {_identity(folder) for folder in (*parents, *(root / top / name for top, name in classes))}
    entries, others, mapped = [], 0, dict.fromkeys(class_map or {}, 0)
    for (top, name), split in classes.items():
        files, ignored = _images_below(root, os.path.join(top, name), entered)
        if name.casefold() in mapped:
            mapped[name.casefold()] += len(files)
        if labels[name] is None:
            continue
        entries += [(file, labels[name], split) for file in files]
        others += ignored
    if not entries:
        raise SourceError(
            f"no images below {root} (looked in {len(classes)} class folders for {', '.join(IMAGE_ENDINGS)})"
        )
    for name, count in mapped.items():
        done = "left out" if class_map[name] == DROP else f"taken as {class_map[name]}"
        notes.append(f"{count:,} images of class {name} {done} (--map {name}={class_map[name]})")
    if others:
        notes.append(f"files that are not images (by their ending) and were not looked at: {others}")
    if strays := [folder / name for folder in parents for name in _images_in(folder)]:
        notes.append(f"images outside the class folders, left out: {len(strays)}, such as {strays[0]}")
    if any(_KAGGLE_NAME.match(os.path.basename(file)) for file, _, _ in entries):
        kind = "kaggle_folders"
    elif kind == "split_folders" and {split for _, _, split in entries} == {"train", "test"}:
        notes.append(
            "the file names have no Training_, PublicTest_ or PrivateTest_ prefix: if this is "
            "FER2013, test/ holds PublicTest and PrivateTest mixed and nothing tells them apart, "
            "so all of it is taken as the test split and scores are not comparable with "
            "PrivateTest scores"
        )
    entries.sort()
    return Source(kind, str(root), len(entries), lambda: _read(root, entries, kind), notes)


def _first(names: list[str], condition: Callable[[str], object]) -> str:
    return next(name for name in names if condition(name))


def _is_dataset(folder: Path) -> bool:
    """Whether its subfolders are splits or emotions."""
    return any(_is_known(name) for name in _subfolders(folder))


def _is_known(name: str) -> bool:
    try:
        return bool(split_name(name) or canonical(name))
    except UnknownEmotionError:
        return False


def _subfolders(folder: Path) -> list[str]:
    return _names(folder, os.DirEntry.is_dir)


def _images_in(folder: Path) -> list[str]:
    return [name for name in _names(folder, os.DirEntry.is_file) if _is_image(name)]


def _names(folder: Path, wanted: Callable[[os.DirEntry], bool]) -> list[str]:
    """Names of what is inside, without what is hidden and what archives leave behind."""
    try:
        names = [entry.name for entry in os.scandir(folder) if wanted(entry)]
    except OSError as error:
        _refuse(error)
    return sorted(name for name in names if not name.startswith((".", "__MACOSX")))


def _refuse(error: OSError) -> NoReturn:
    raise SourceError(
        f"{error.filename} cannot be listed: {error.strerror}; check its permissions"
    ) from error


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder has in common with the links to it."""
    try:
        status = os.stat(folder)
    except OSError as error:
        _refuse(error)
    return status.st_dev, status.st_ino


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS)


def _labels(
    root: Path, names: set[str], notes: list[str], class_map: Mapping[str, str]
) -> dict[str, int | None]:
    """The label of each class folder, None of those that are left out."""
    if missing := sorted(class_map.keys() - {name.casefold() for name in names}):
        raise SourceError(
            f"{root} has no class folder {missing[0]}, which --map names; it has: {', '.join(sorted(names))}"
        )
    if names == {str(i) for i in range(len(EMOTIONS))}:
        order = ", ".join(f"{i} {name}" for i, name in enumerate(EMOTIONS))
        notes.append(f"the class folders are numbers; they were taken in the order of FER2013: {order}")
        return {name: int(name) for name in names}
    labels = {}
    for name in sorted(names):
        target = class_map.get(name.casefold(), name)
        if target == DROP:
            labels[name] = None
            continue
        try:
            labels[name] = emotion_id(target)
        except UnknownEmotionError as error:
            advice = (
                f"say what it is (--map {name}={DROP} leaves it out, --map {name}=disgust takes it as "
                "disgust), "
                "rename the folder or move it out of the source"
            )
            if name.isdigit():
                advice = (
                    "numbers are only understood as 0 to 6, all seven, in the order of FER2013; "
                    "datasets differ in how they count, so give these folders the names of their "
                    f"emotions, or say them by --map {name}=EMOTION"
                )
            raise SourceError(f"{root}: {error}; {advice}") from error
    return labels


def _images_below(root: Path, folder: str, entered: set[tuple[int, int]]) -> tuple[list[str], int]:
    """Paths of the images at any depth (from `root`, with /), and the count of other files.

    Folders inside that are in `entered` are passed over, and the others added to it, so that links
    lead neither in circles nor twice to an image.
    """
    images, others = [], 0
    for parent, folders, files in os.walk(root / folder, onerror=_refuse, followlinks=True):
        inside = {_identity(Path(parent, name)): name for name in sorted(folders) if name[0] != "."}
        folders[:] = [name for identity, name in inside.items() if identity not in entered]
        entered |= inside.keys()
        for file in files:
            if file.startswith("."):
                continue
            if _is_image(file):
                images.append(Path(parent, file).relative_to(root).as_posix())
            else:
                others += 1
    return images, others


def _read(root: Path, entries: list[_Entry], kind: str) -> Iterator[Record | BadRecordError]:
    for file, label, split in entries:
        where = os.fsencode(root / file).decode("utf-8", "backslashreplace")
        try:
            if "\\x" in where and where != str(root / file):
                raise BadRecordError(where, "the file's name is not UTF-8; rename it")
            if kind == "kaggle_folders":
                split = _kaggle_split(file, split, where)
            yield Record(read_image(root / file), label, split, file, where)
        except BadRecordError as error:
            yield error


def _kaggle_split(file: str, folder_split: str | None, where: str) -> str | None:
    """The prefix decides: Kaggle's test/ mixes PublicTest and PrivateTest."""
    match = _KAGGLE_NAME.match(os.path.basename(file))
    if match:
        return split_name(match[1])
    if folder_split == "train":
        return folder_split
    raise BadRecordError(
        where,
        "its name has no Training_, PublicTest_ or PrivateTest_ prefix, as other files of this "
        "source have, so its split is unknown; move it to train/ or away",
    )


def read_image(path: Path) -> np.ndarray:
    """Decodes an image file, see `decode`.

    Raises:
      BadRecordError: when it cannot be read, is cut off or is too large.
    """
    try:
        with open(path, "rb") as file:
            return decode(file, str(path))
    except PermissionError as error:
        raise BadRecordError(str(path), "no permission to read it; check the file's permissions") from error
    except OSError as error:
        raise BadRecordError(str(path), f"cannot be read: {error.strerror or error}") from error


def decode(file: BinaryIO, where: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image, turned upright as its EXIF data say; safe to call from several threads.

    Args:
      file: the encoded image, open for reading; of one with several frames the first is taken.
      where: what to call it in a message.
      max_pixels: what declares more is refused before it is decoded.

    Returns:
      uint8 [H, W] when grey (also when stored as RGB with equal channels), else [H, W, 3].

    Raises:
      BadRecordError: when it cannot be decoded, is cut off or is too large.
    """
    try:
        # Above its own limits Pillow warns, then refuses. The filters of warnings are the whole process's, so
        # the warning stays one: what it is about is refused just below.
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise BadRecordError(where, _too_large(f"{image.width} x {image.height} pixels", max_pixels))
        return to_array(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        found = f"{count[0]} pixels" if count else str(error)
        raise BadRecordError(where, _too_large(found, max_pixels)) from error
    except DECODING_ERRORS as error:
        if isinstance(error, BadRecordError):
            raise
        reason = "it is not an image that can be read" if "identify" in str(error) else str(error)
        raise BadRecordError(where, f"cannot be decoded: {reason}; expected a whole image file") from error


def _too_large(found: str, max_pixels: int) -> str:
    return f"declares {found}, more than the limit of {max_pixels:,}; it was not decoded"


def to_array(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits a pixel
        return (np.asarray(image, np.float32) / 257).round().clip(0, 255).astype(np.uint8)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    array = np.asarray(image.convert("RGB"))
    grey = (array[..., :1] == array).all()
    return np.ascontiguousarray(array[..., 0]) if grey else array
