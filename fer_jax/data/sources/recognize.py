"""Recognizes and reads what users have on disk: CSV files here, image folders in `folders`."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fer_jax.data.csv_file import CsvFile, open_csv
from fer_jax.data.emotions import EMOTIONS, UnknownEmotionError, emotion_id
from fer_jax.data.sources import folders, synthetic
from fer_jax.data.sources.record import BadRecordError, Record, Source, SourceError, split_name

CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
SMALLEST_SIDE = 8  # pixels; fewer in a row are no face
SYNTHETIC_SEED = 0


def open_source(
    path: str | Path, class_map: Mapping[str, str] | None = None, splits: str | None = None
) -> Source:
    """Recognizes what `path` is: a FER2013 CSV, a folder of images, or the word "synthetic".

    Args:
      path: what to read.
      class_map: for folders, see `folders.open_folders`.
      splits: likewise.

    Raises:
      SourceError: there is nothing there, or nothing that can be read as a dataset.
    """
    is_synthetic, path = str(path) == "synthetic", Path(path).expanduser()
    files = [file for file in (path, *(path / name for name in CSV_NAMES)) if file.is_file()]
    if path.is_dir() and not files and not is_synthetic:
        return folders.open_folders(path, class_map, splits)
    for flag, value in (("--map", class_map), ("--splits", splits)):
        if value:
            raise SourceError(f"{flag} is for folders of classes, and {path} is none")
    if is_synthetic:
        total = len(EMOTIONS) * sum(synthetic.PER_CLASS.values())
        return Source("synthetic", "synthetic", total, _read_synthetic)
    if files:
        return _open_csv(files[0])
    near = next(parent for parent in path.absolute().parents if parent.exists())
    raise SourceError(
        f"{path} does not exist ({near.resolve()} does); give a fer2013.csv, an "
        "icml_face_data.csv, a folder of images in SPLIT/CLASS/ or CLASS/ subfolders, or the word "
        "synthetic"
    )


def _open_csv(path: Path) -> Source:
    """Opens fer2013.csv, icml_face_data.csv, or the competition's train.csv, which has no Usage."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise SourceError(f"{path} is not a .csv file; give a fer2013.csv or a folder of images")
    try:
        table = open_csv(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    missing = [name for name in ("emotion", "pixels") if name not in table.header]
    if missing:
        raise SourceError(
            f"{path} row 1: the header has no column {' and no column '.join(missing)}, it reads "
            f"{table.header_line.strip()[:80]!r}; expected emotion, pixels and Usage (the file of the "
            "challenge)"
        )
    kind = "icml_csv" if table.header_line.startswith("emotion, ") else "fer2013_csv"
    notes = []
    if "usage" not in table.header:
        notes.append(f"{path.name} has no Usage column: the splits are drawn from all its rows")
    return Source(kind, str(path), max(table.line_count - 1, 1), lambda: _read_csv(table), notes)


def _read_csv(table: CsvFile) -> Iterator[Record | BadRecordError]:
    """Yields the rows. The header is row 1, as in an editor; ids count the data rows from 0, as FER+ does."""
    columns = [
        table.header.index(name) if name in table.header else None for name in ("emotion", "pixels", "usage")
    ]
    name, shape = Path(table.path).name, None
    for index, (number, row) in enumerate(table.rows(strict=False)):
        where = f"{name} row {number}"
        try:
            if len(row) < len(table.header):
                raise BadRecordError(where, f"{len(row)} fields, expected {len(table.header)}")
            emotion, pixels, usage = (None if c is None else row[c] for c in columns)
            if usage is not None and not split_name(usage):
                reason = f"Usage is {usage!r}, expected Training, PublicTest or PrivateTest"
                raise BadRecordError(where, reason)
            label, image = _parse_label(emotion, where), _parse_pixels(pixels, shape, where)
            shape = image.shape
            split, record_id = usage and split_name(usage), f"{(usage or 'row').strip()}/{index:06d}"
            yield Record(image, label, split, record_id, where)
        except BadRecordError as error:
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
        raise BadRecordError(where, reason) from error


def _parse_pixels(text: str, shape: tuple[int, ...] | None, where: str) -> np.ndarray:
    """Returns a row's pixels as uint8 [S, S] or [S, S, 3].

    Args:
      text: the numbers, between blanks; three for each pixel in color.
      shape: of the rows before, which all rows share; None for the first.
      where: for messages.
    """
    odd = text.encode("utf-8", "replace").translate(None, b"0123456789 ")
    if odd:
        words = (word for word in text.split(" ") if not (word.isascii() and word.isdigit()) and word)
        number = next(iter(words), odd.decode("utf-8", "replace"))
        reason = f"pixels hold {number[:20]!r}, expected whole numbers from 0 to 255 between blanks"
        raise BadRecordError(where, reason)
    # `np.fromstring` takes a ninth of the time of splitting.
    values = np.fromstring(text, dtype=np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)
    shape = shape or _square(values.size)
    if shape is None:
        expected = f"a square of side {SMALLEST_SIDE} or more, such as 2304 (48 x 48), or 3 times as many"
        raise BadRecordError(where, f"{values.size} pixels, expected {expected}, in color")
    if values.size != math.prod(shape):
        expected = f"{math.prod(shape)} ({' x '.join(map(str, shape))}), as in the rows before"
        raise BadRecordError(where, f"{values.size} pixels, expected {expected}")
    if values.max() > 255:
        raise BadRecordError(where, f"a pixel is {values.max()}, expected 0 to 255")
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
