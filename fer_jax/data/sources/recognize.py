"""Recognises and reads what users have on disk: CSV files here, image folders in `folders`."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import folders, synthetic
from fer_jax.data.sources.record import BadRecordError, Record, Source, SourceError, split_name

CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
SIDE = 48  # the CSV files hold 48 x 48 grey pixels a row
SYNTHETIC_SEED = 0


def open_source(path: str | Path, class_map: Mapping[str, str] | None = None) -> Source:
    """Recognises what `path` is: a FER2013 CSV, a folder of images, or the word "synthetic".

    Args:
      path: what to read.
      class_map: for folders, see `folders.open_folders`.

    Raises:
      SourceError: when there is nothing there, or nothing that can be read as a dataset.
    """
    is_drawn, path = str(path) == "synthetic", Path(path).expanduser()
    files = [file for file in (path, *(path / name for name in CSV_NAMES)) if file.is_file()]
    if path.is_dir() and not files and not is_drawn:
        return folders.open_folders(path, class_map)
    if class_map:
        raise SourceError(f"--map is for folders of classes, and {path} is none")
    if is_drawn:
        return _open_synthetic()
    if files:
        return _open_csv(files[0])
    near = path.parent
    while not near.exists():
        near = near.parent
    raise SourceError(
        f"{path} does not exist ({near.resolve()} does); give a fer2013.csv, an "
        "icml_face_data.csv, a folder of images in SPLIT/CLASS/ or CLASS/ subfolders, or the word "
        "synthetic"
    )


# --- CSV ---


def _open_csv(path: Path) -> Source:
    """fer2013.csv, icml_face_data.csv, and the competition's train.csv, which has no Usage."""
    if path.suffix.lower() != ".csv":
        raise SourceError(f"{path} is not a .csv file; give a fer2013.csv or a folder of images")
    try:
        with open(path, "rb") as file:
            raw_header = file.readline(1 << 16).decode("utf-8-sig", "replace")
            rows = 1 + sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 22), b""))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    columns = next(csv.reader([raw_header], skipinitialspace=True), [])
    header = [name.strip().casefold() for name in columns]
    missing = [name for name in ("emotion", "pixels") if name not in header]
    if missing:
        raise SourceError(
            f"{path} row 1: the header has no column {' and no column '.join(missing)}, it reads "
            f"{raw_header.strip()[:80]!r}; expected emotion, pixels and Usage (the file of the "
            "challenge)"
        )
    kind = "icml_csv" if raw_header.startswith("emotion, ") else "fer2013_csv"
    notes = []
    if "usage" not in header:
        notes.append(f"{path.name} has no Usage column: the splits are drawn from all its rows")
    return Source(kind, str(path), max(rows - 1, 1), lambda: _read_csv(path, header), notes)


def _read_csv(path: Path, header: list[str]) -> Iterator[Record | BadRecordError]:
    """The header is row 1, as in an editor; ids count the data rows from 0, as FER+ does."""
    columns = [header.index(name) if name in header else None for name in ("emotion", "pixels", "usage")]
    csv.field_size_limit(1 << 24)  # the default of 131,072 characters would hide what an odd row holds
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        index = 0
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRecordError(f"{path.name} row {reader.line_num}", f"not CSV: {error}")
                continue
            if not row:
                continue
            where = f"{path.name} row {reader.line_num}"
            try:
                if len(row) < len(header):
                    raise BadRecordError(where, f"{len(row)} fields, expected {len(header)}")
                emotion, pixels, usage = (None if c is None else row[c] for c in columns)
                split = None if usage is None else _parse_usage(usage, where)
                label, image = _parse_label(emotion, where), _parse_pixels(pixels, where)
                yield Record(image, label, split, f"{(usage or 'row').strip()}/{index:06d}", where)
            except BadRecordError as error:
                yield error
            index += 1


def _parse_usage(text: str, where: str) -> str:
    split = split_name(text)
    if split is None:
        raise BadRecordError(where, f"Usage is {text!r}, expected Training, PublicTest or PrivateTest")
    return split


def _parse_label(text: str, where: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and int(text) < len(EMOTIONS)):
        names = ", ".join(f"{i} {name}" for i, name in enumerate(EMOTIONS))
        raise BadRecordError(where, f"emotion is {text[:40]!r}, expected a number from 0 to 6 ({names})")
    return int(text)


def _parse_pixels(text: str, where: str) -> np.ndarray:
    """A row's pixels as uint8 [48, 48]; `np.fromstring` takes a ninth of the time of splitting."""
    odd = text.encode("utf-8", "replace").translate(None, b"0123456789 ")
    if odd:
        words = (word for word in text.split(" ") if not (word.isascii() and word.isdigit()) and word)
        number = next(iter(words), odd.decode("utf-8", "replace"))
        raise BadRecordError(
            where,
            f"pixels hold {number[:20]!r}, expected whole numbers from 0 to 255 between blanks",
        )
    values = np.fromstring(text, dtype=np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)
    if values.size != SIDE * SIDE:
        raise BadRecordError(where, f"{values.size} pixels, expected {SIDE * SIDE} ({SIDE} x {SIDE})")
    if values.max() > 255:
        raise BadRecordError(where, f"a pixel is {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(SIDE, SIDE)


# --- synthetic ---


def _open_synthetic() -> Source:
    total = len(EMOTIONS) * sum(synthetic.PER_CLASS.values())
    return Source("synthetic", "synthetic", total, _read_synthetic)


def _read_synthetic() -> Iterator[Record]:
    for split, per_class in synthetic.PER_CLASS.items():
        images, labels = synthetic.generate(per_class, SYNTHETIC_SEED, split)
        for index, (image, label) in enumerate(zip(images[..., 0], labels, strict=True)):
            name = f"{split}/{index:06d}"
            yield Record(image, int(label), split, name, f"synthetic face {name}")
