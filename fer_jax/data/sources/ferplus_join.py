"""Joins FER+'s votes to the images of a source, by row or by pixels."""

import collections
import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fer_jax.data import ferplus
from fer_jax.data.near_duplicates import block_count, near_pairs, shrink
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import BadRecordError, Record, Source, SourceError, split_name
from fer_jax.data.splits import pixel_digest

# JPEG of quality 95 leaves all images of FER2013 a correlation of .994 and more with their rows, JPEG of
# quality 75 one in 5,000 less than this. One in 50 has another image this like it; its own row is more so.
SAME_IMAGE = 0.97
# A row is as like as the best one when its distance, 1 - correlation, is at most 1.25 times that of the best
# and this more: the compression may turn the order of such rows round.
_AS_LIKE = 0.0005

_BY_ROW = ("fer2013_csv", "icml_csv")
# The votes elect FER2013's own label for .63 of the images, and for .23 where the rows are shuffled.
_AGREEMENT = 0.45
_ENOUGH = 100  # images to judge that by
_OTHERWISE = "for other copies name the challenge's file too, with --ferplus_pixels fer2013.csv"


@dataclasses.dataclass
class Votes:
    """What fer2013new.csv holds.

    Attributes:
      path: the file.
      splits: N of "train", "validation", "test".
      counts: uint8 [N, 10], in the order of `ferplus.COLUMNS`.
      rows: N row numbers in the file, as in an editor.
    """

    path: Path
    splits: list[str]
    counts: np.ndarray
    rows: list[int]

    def where(self, index: int) -> str:
        return f"{self.path.name} row {self.rows[index]}"


def join(
    source: Source, votes_csv: str | Path, pixels_csv: str | Path | None = None, *, progress: bool = True
) -> Source:
    """The source with FER+'s votes on its records.

    Args:
      source: of FER2013 or a copy of it. Without `pixels_csv` it must be a CSV file with a Usage column
        whose rows are those of `votes_csv`, in the same order; it may lack the last splits.
      votes_csv: Microsoft's fer2013new.csv.
      pixels_csv: the challenge's fer2013.csv, for sources of images: an image has the votes of the row with
        the same pixels, else of the row most like it, if the correlation is at least `SAME_IMAGE`. Where
        several rows are (nearly) as like, their votes have to be the same, or those of the rows with the
        image's split and label. Kaggle's file names tell the split: of these images only rows of the same
        split count. Images without a row keep zeros for votes; the source's notes count them.
      progress: show a progress bar.

    Raises:
      SourceError: a file cannot be used, or the two do not belong together; here or when the source is read.
        The message names file and row.
    """
    votes = read_votes(votes_csv)
    if pixels_csv is not None:
        return _by_pixels(source, _by_row(_open_reference(pixels_csv), votes), votes, progress)
    if source.kind in _BY_ROW:
        return _by_row(source, votes)
    raise SourceError(
        f"{source.path} has no rows to join those of {votes.path.name} to: name the challenge's file too, "
        "with --ferplus_pixels fer2013.csv, in which the images are then looked for"
    )


def read_votes(path: str | Path) -> Votes:
    """Reads fer2013new.csv; the columns may be in any order.

    Raises:
      SourceError: it cannot be read, or holds something else; the message names the row.
    """
    path = Path(path).expanduser()
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip().casefold() for name in next(reader, [])]
            names = ["usage", *(name.casefold() for name in ferplus.COLUMNS)]
            if missing := [name for name in names if name not in header]:
                raise SourceError(
                    f"{path} row 1: the header has no column {', '.join(missing)}; expected FER+'s "
                    f"fer2013new.csv: Usage, Image name, {', '.join(ferplus.COLUMNS)}"
                )
            columns = [header.index(name) for name in names]
            splits, counts, rows = [], [], []
            for row in reader:
                if row:
                    split, count = _parse(row, columns, len(header), f"{path} row {reader.line_num}")
                    splits.append(split)
                    counts.append(count)
                    rows.append(reader.line_num)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; give FER+'s fer2013new.csv") from error
    except csv.Error as error:
        raise SourceError(f"{path} row {reader.line_num} is not CSV: {error}") from error
    if not rows:
        raise SourceError(f"{path} has a header and no votes; download FER+'s fer2013new.csv again")
    return Votes(path, splits, np.array(counts, np.uint8), rows)


def _parse(row: list[str], columns: list[int], width: int, where: str) -> tuple[str, list[int]]:
    """A row's split and votes."""
    if len(row) < width:
        raise SourceError(f"{where}: {len(row)} fields, expected {width}; download FER+'s file again")
    usage, *texts = (row[column].strip() for column in columns)
    split = split_name(usage)
    if split is None:
        raise SourceError(f"{where}: Usage is {usage!r}, expected Training, PublicTest or PrivateTest")
    for name, text in zip(ferplus.COLUMNS, texts, strict=True):
        if not (text.isascii() and text.isdigit() and int(text) <= 255):
            raise SourceError(f"{where}: {name} is {text[:20]!r}, expected a number of votes (0 to 10)")
    return split, [int(text) for text in texts]


# --- by row ---


def _by_row(source: Source, votes: Votes) -> Source:
    elected = ferplus.labels(votes.counts, "ferplus_argmax8", 8)[0]

    def read() -> Iterator[Record | BadRecordError]:
        index, judged, agreeing = -1, 0, 0
        for index, item in enumerate(source.read()):
            if index == len(votes.rows):
                raise SourceError(
                    f"{source.path} has more rows than {votes.path}, which ends with row {votes.rows[-1]}: "
                    "give the whole fer2013new.csv"
                )
            if isinstance(item, Record):
                _check_split(item, votes, index)
                item.votes = votes.counts[index]
                judged += elected[index] != ferplus.LEFT_OUT
                agreeing += elected[index] == item.label
            yield item
        _check_end(source, votes, index + 1)
        if judged >= _ENOUGH and agreeing < _AGREEMENT * judged:
            raise SourceError(
                f"the rows of {source.path} and {votes.path} do not belong together: their emotions agree "
                f"for {agreeing / judged:.0%} of the images, in the challenge's file for 63%. The rows must "
                f"be in its order; {_OTHERWISE}"
            )

    note = f"FER+ votes of {votes.path.name} joined by row"
    return dataclasses.replace(source, read=read, notes=[*source.notes, note])


def _check_split(record: Record, votes: Votes, index: int) -> None:
    if record.split is None:
        raise SourceError(
            f"{record.where} has no Usage by which to check that it belongs to {votes.where(index)}: the "
            f"file needs that column; {_OTHERWISE}"
        )
    if record.split != votes.splits[index]:
        raise SourceError(
            f"{record.where} is of {record.split}, {votes.where(index)} of {votes.splits[index]}: the rows "
            f"must be those of the challenge's file, in its order; {_OTHERWISE}"
        )


def _check_end(source: Source, votes: Votes, count: int) -> None:
    """Missing rows are fine if they are whole splits at the end; a split that is cut may be a selection."""
    if count < len(votes.rows) and count and votes.splits[count] == votes.splits[count - 1]:
        raise SourceError(
            f"{source.path} ends where {votes.where(count)} goes on with the same Usage: the file must have "
            f"all rows of each split that it has; {_OTHERWISE}"
        )


# --- by pixels ---


@dataclasses.dataclass
class _Images:
    """A source in memory, N images.

    Attributes:
      images: uint8 [N, 48, 48].
      labels: int [N].
      splits: N names or None.
      ids: N strings.
      votes: uint8 [N, 10] or N times None.
    """

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    ids: np.ndarray
    votes: np.ndarray

    def take(self, chosen: np.ndarray) -> "_Images":
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))
        return _Images(*(values[chosen] for values in fields))


def _open_reference(path: str | Path) -> Source:
    source = open_source(path)
    if source.kind not in _BY_ROW:
        raise SourceError(f"{path} is not the challenge's fer2013.csv, in which to look for the images")
    return source


def _by_pixels(source: Source, reference: Source, votes: Votes, progress: bool) -> Source:
    found, counts = _look_up(source, reference, progress)
    nothing = np.zeros(len(ferplus.COLUMNS), np.uint8)

    def read() -> Iterator[Record | BadRecordError]:
        for item in source.read():
            if isinstance(item, Record):
                item.votes = found.get(item.id, nothing)
            yield item

    note = (
        f"FER+ votes of {votes.path.name} joined by the pixels in {Path(reference.path).name}: "
        f"{counts['same']:,} images by the same pixels, {counts['like']:,} by a correlation of "
        f"{SAME_IMAGE} and more; without votes are {counts['unknown']:,} images that are not in it and "
        f"{counts['ambiguous']:,} that fit rows with different votes"
    )
    return dataclasses.replace(source, read=read, notes=[*source.notes, note])


def _look_up(
    source: Source, reference: Source, progress: bool
) -> tuple[dict[str, np.ndarray], collections.Counter[str]]:
    """Votes by the ids of the images that have any, and how many images were found how."""
    rows = _read_all(reference, "reading the CSV", progress)
    images = _read_all(source, "reading the images", progress)
    parts = [(images, rows)]
    if source.kind == "kaggle_folders":
        splits = sorted(set(images.splits))
        parts = [(images.take(images.splits == name), rows.take(rows.splits == name)) for name in splits]
    votes: dict[str, np.ndarray] = {}
    counts: collections.Counter[str] = collections.Counter()
    for part, its_rows in parts:
        for name, how, of_row in _match(part, its_rows, progress):
            counts[how] += 1
            if of_row is not None:
                votes[name] = of_row
    if not votes:
        raise SourceError(
            f"no image of {source.path} is in {reference.path}: FER+ has votes for FER2013 only; leave out "
            "--ferplus"
        )
    return votes, counts


def _read_all(source: Source, what: str, progress: bool) -> _Images:
    """Bad rows and images are passed over: of the source they are reported when the dataset is built."""
    with tqdm(total=source.total, unit=" images", desc=what, disable=not progress) as bar:
        records = []
        for record in source.records(lambda bad: None):
            records.append((shrink(record.image), record.label, record.split, record.id, record.votes))
            bar.update()
    if not records:
        raise SourceError(f"no image of {source.path} can be used")
    images, labels, splits, ids, votes = zip(*records, strict=True)
    return _Images(*map(np.stack, (images, labels)), np.array(splits, object), np.array(ids), np.array(votes))


def _match(images: _Images, rows: _Images, progress: bool) -> Iterator[tuple[str, str, np.ndarray | None]]:
    """For each image its id, how it was found (same, like, ambiguous or unknown) and its votes."""
    of_digest: dict[bytes, list[int]] = {}
    for row, image in enumerate(rows.images):
        of_digest.setdefault(pixel_digest(image), []).append(row)
    same = [of_digest.get(pixel_digest(image), []) for image in images.images]
    rest = np.flatnonzero([not found for found in same])
    like = dict(zip(rest.tolist(), _most_like(images.images[rest], rows.images, progress), strict=True))
    for i, found in enumerate(same):
        found = found or like[i]
        votes = _agreed(rows, np.array(found, int), images.labels[i], images.splits[i])
        how = "unknown" if not found else "ambiguous" if votes is None else "like" if i in like else "same"
        yield images.ids[i], how, votes


def _most_like(images: np.ndarray, rows: np.ndarray, progress: bool) -> list[list[int]]:
    """For each image uint8 [48, 48] the most like of `rows` and those as like, if any is like enough."""
    if not len(images) or not len(rows):
        return [[] for _ in images]
    blocks = block_count(len(images), len(rows))
    with tqdm(total=blocks, unit=" blocks", desc="comparing", disable=not progress) as bar:
        pairs = list(near_pairs(images, SAME_IMAGE, bar.update, others=rows))
    found: list[list[int]] = [[] for _ in images]
    if not pairs:
        return found
    image, row, correlation = map(np.concatenate, zip(*pairs, strict=True))
    best = np.zeros(len(images))
    np.maximum.at(best, image, correlation)
    good = 1 - correlation <= 1.25 * (1 - best[image]) + _AS_LIKE
    for i, r in zip(image[good].tolist(), row[good].tolist(), strict=True):
        found[i].append(r)
    return found


def _agreed(rows: _Images, found: np.ndarray, label: int, split: str | None) -> np.ndarray | None:
    """The votes that the rows `found` (int [M]) have in common, or those of an image's label and split."""
    alike = found[(rows.labels[found] == label) & ((split is None) | (rows.splits[found] == split))]
    for chosen in (found, alike):
        votes = np.unique(rows.votes[chosen], axis=0)
        if len(votes) == 1:
            return votes[0]
    return None
