"""Recognizes the kind of a source and opens it; reads CSV files of pixels."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.csv_file import CsvFile, open_csv
from fer_jax.data.decoding import PictureError
from fer_jax.data.emotions import EMOTIONS, UnknownEmotionError, emotion_id
from fer_jax.data.sources import downloads, folders, label_lists, parquet, synthetic
from fer_jax.data.sources.record import Record, Source, SourceError, split_name

CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
TEXT_ENDINGS, PARQUET = (".csv", ".tsv", ".txt", ".lst"), ".parquet"
SMALLEST_SIDE = 8  # pixels
SYNTHETIC_SEED = 0


def open_source(
    path: str | Path, class_map: Mapping[str, str] | None = None, splits: str | None = None
) -> Source:
    """Recognizes the kind of a source and opens it.

    Args:
      path: a CSV file of pixels, a list of labeled images, a Parquet file, a folder of one of these or of
        images, a dataset name for `downloads`, or the word "synthetic".
      class_map: labels of classes, see `classes.parse`.
      splits: for folders of classes, see `folders.open_folders`.

    Raises:
      SourceError: the source does not exist, or is not a dataset.
    """
    word = str(path)
    if word.startswith(tuple(downloads.HUBS)):
        folder = downloads.fetch(word)
        found = open_source(folder, class_map, splits)
        return dataclasses.replace(found, path=word, notes=[f"downloaded to {folder}", *found.notes])
    if word == "synthetic":
        _refuse_flags(word, class_map, splits)
        total = len(EMOTIONS) * sum(synthetic.PER_CLASS.values())
        return Source("synthetic", "synthetic", total, _read_synthetic)
    path = Path(path).expanduser()
    files = _find_files(path)
    if path.is_dir() and not files:
        return folders.open_folders(path, class_map, splits)
    if not files:
        near = next(parent for parent in path.absolute().parents if parent.exists())
        raise SourceError(
            f"{path} does not exist ({near.resolve()} does); give a fer2013.csv, an icml_face_data.csv, a "
            "folder of images in SPLIT/CLASS/ or CLASS/ subfolders, a CSV file of paths and labels, a "
            f"Parquet file, {' or '.join(f'{hub}OWNER/NAME' for hub in downloads.HUBS)}, or the word "
            "synthetic"
        )
    _refuse_flags(path, None, splits)
    if files[0].suffix.lower() == PARQUET:
        return parquet.open_parquet(files, path, class_map)
    tables = list(map(_open_table, files))
    lists = [found for table in tables if (found := label_lists.recognize(table))]
    if lists and "pixels" not in tables[0].header:
        return label_lists.open_lists(lists, path, class_map)
    _refuse_flags(path, class_map, None)
    return _open_csv(tables[0])


def _refuse_flags(path: str | Path, class_map: Mapping[str, str] | None, splits: str | None) -> None:
    if class_map:
        raise SourceError(
            f"--map is for folders, lists, and Parquet files with class names, and {path} is none of these"
        )
    if splits:
        raise SourceError(f"--splits is for class folders, and {path} has none")


def _find_files(path: Path) -> list[Path]:
    """Returns the file, or the dataset files in a folder; [] for folders of images."""
    if path.is_file():
        return [path]
    if files := [path / name for name in CSV_NAMES if (path / name).is_file()]:
        return files[:1]
    lists = [path / name for name in label_lists.PLACES if (path / name).is_file()]
    found = {one: label_lists.recognize(_open_table(one)) for one in lists}
    if lists := [one for one, known in found.items() if known and known.dataset]:
        return lists
    return sorted(one for one in path.rglob(f"*{PARQUET}") if one.is_file())


def _open_table(path: Path) -> CsvFile:
    if path.suffix.lower() not in TEXT_ENDINGS:
        raise SourceError(
            f"{path} is not a {', '.join(TEXT_ENDINGS)} or {PARQUET} file; give a fer2013.csv or a folder of "
            "images"
        )
    try:
        return open_csv(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def _open_csv(table: CsvFile) -> Source:
    """Opens fer2013.csv, icml_face_data.csv, or the competition's train.csv, which lacks Usage."""
    if missing := [name for name in ("emotion", "pixels") if name not in table.header]:
        raise SourceError(
            f"{table.path} row 1: the header has no column {' and no column '.join(missing)}, it reads "
            f"{table.header_line.strip()[:80]!r}; expected emotion, pixels, and Usage (the challenge's "
            "file), or path and label (a list of images)"
        )
    kind = "icml_csv" if table.header_line.startswith("emotion, ") else "fer2013_csv"
    notes = []
    if "usage" not in table.header:
        name = Path(table.path).name
        notes.append(f"{name} has no Usage column: splits are drawn at random")
    return Source(kind, table.path, max(table.line_count - 1, 1), lambda: _read_csv(table), notes)


def _read_csv(table: CsvFile) -> Iterator[Record | PictureError]:
    """Yields the rows. The header is row 1, as in an editor; IDs count data rows from 0, as FER+."""
    columns = [
        table.header.index(name) if name in table.header else None for name in ("emotion", "pixels", "usage")
    ]
    name, shape = Path(table.path).name, None
    for index, (number, row) in enumerate(table.rows(strict=False)):
        where = f"{name} row {number}"
        try:
            if len(row) < len(table.header):
                raise PictureError(where, f"{len(row)} fields, expected {len(table.header)}")
            fields: Any = (None if c is None else row[c] for c in columns)
            emotion, pixels, usage = fields
            if usage is not None and not split_name(usage):
                reason = f"Usage is {usage!r}, expected Training, PublicTest or PrivateTest"
                raise PictureError(where, reason)
            label, image = _parse_label(emotion, where), _parse_pixels(pixels, shape, where)
            shape = image.shape
            split, record_id = usage and split_name(usage), f"{(usage or 'row').strip()}/{index:06d}"
            yield Record(image, label, split, record_id, where)
        except PictureError as error:
            yield error


def _parse_label(text: str, where: str) -> int:
    text = text.strip()
    if text.isascii() and text.isdigit() and int(text[:9]) < len(EMOTIONS):
        return int(text)
    try:
        return emotion_id(text)
    except UnknownEmotionError as error:
        names = ", ".join(f"{i} {name}" for i, name in enumerate(EMOTIONS))
        reason = f"emotion is {text[:40]!r}, expected a number from 0 to 6 or its name ({names})"
        raise PictureError(where, reason) from error


def _parse_pixels(text: str, shape: tuple[int, ...] | None, where: str) -> np.ndarray:
    """Parses numbers separated by blanks to uint8 [S, S] or [S, S, 3]; rows have the first one's `shape`."""
    odd = text.encode("utf-8", "replace").translate(None, b"0123456789 ")
    if odd:
        words = (word for word in text.split(" ") if not (word.isascii() and word.isdigit()) and word)
        number = next(iter(words), odd.decode("utf-8", "replace"))
        reason = f"pixels contain {number[:20]!r}, expected integers from 0 to 255 separated by blanks"
        raise PictureError(where, reason)
    # `np.fromstring` is nine times faster than splitting.
    values = np.fromstring(text, dtype=np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)
    shape = shape or _square(values.size)
    if shape is None:
        expected = f"a square of at least {SMALLEST_SIDE**2}, such as 2304 (48 x 48), or 3 times as many"
        raise PictureError(where, f"{values.size} pixels, expected {expected}, in color")
    if values.size != math.prod(shape):
        expected = f"{math.prod(shape)} ({' x '.join(map(str, shape))}), as in previous rows"
        raise PictureError(where, f"{values.size} pixels, expected {expected}")
    if values.max() > 255:
        raise PictureError(where, f"a pixel is {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _square(count: int) -> tuple[int, ...] | None:
    """Returns the shape of a square image of `count` numbers, gray or RGB, or None."""
    for channels in ((), (3,)):
        side = math.isqrt(count // math.prod(channels))
        shape = (side, side, *channels)
        if side >= SMALLEST_SIDE and math.prod(shape) == count:
            return shape
    return None


def _read_synthetic() -> Iterator[Record]:
    for split, per_class in synthetic.PER_CLASS.items():
        images, labels = synthetic.generate(per_class, SYNTHETIC_SEED, split)
        for index, (image, label) in enumerate(zip(images[..., 0], labels, strict=True)):
            name = f"{split}/{index:06d}"
            yield Record(image, int(label), split, name, f"synthetic face {name}")
