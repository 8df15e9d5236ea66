"""Joins FER+ votes to the images of a source, by row or by pixels."""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fer_jax.data import ferplus
from fer_jax.data.csv_file import CsvError, open_csv
from fer_jax.data.decoding import PictureError
from fer_jax.data.near_duplicates import near_pairs, shrink
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import Record, Source, SourceError, split_name
from fer_jax.data.splits import pixel_digest

# At JPEG quality 95 all images of FER2013 have a correlation of at least .994 with their rows; at quality 75,
# one in 5,000 has less than this. One in 50 images has another image this similar, but its own row
# is more similar.
SAME_IMAGE = 0.97
# A row ties with the best one if its distance, 1 - correlation, is at most 1.25 times the best distance plus
# this: compression may reverse the order of such rows.
_AS_SIMILAR = 0.0005

_BY_ROW = ("fer2013_csv", "icml_csv")
# The majority vote is FER2013's own label for .63 of the images, and for .23 if the rows are shuffled.
_AGREEMENT = 0.45
_ENOUGH = 100  # images needed for this check
_OTHERWISE = "for other copies add --ferplus_pixels fer2013.csv, the challenge's file"


@dataclasses.dataclass
class Votes:
    """The content of fer2013new.csv."""

    path: Path
    splits: list[str]  # N of "train", "validation", "test"
    counts: np.ndarray  # uint8 [N, 10], in the order of `ferplus.COLUMNS`
    rows: list[int]  # N row numbers in the file, as in an editor

    def where(self, index: int) -> str:
        """Returns the file and row of an image's votes, for messages."""
        return f"{self.path.name} row {self.rows[index]}"


def join(source: Source, votes_csv: str | Path, pixels_csv: str | Path | None = None) -> Source:
    """Returns the source with FER+ votes on its records.

    Args:
      source: FER2013 or a copy of it. Without `pixels_csv` it must be a CSV file with a Usage column and the
        rows of `votes_csv`, in the same order; it may lack the last splits.
      votes_csv: Microsoft's fer2013new.csv.
      pixels_csv: the challenge's fer2013.csv, for sources of images: an image gets the votes of the row with
        the same pixels, or else of the most similar row with a correlation of at least `SAME_IMAGE`. Tied
        rows must have the same votes, or those with the image's split and label must. If Kaggle's file
        names state the split, only rows of this split are considered. Images without a row get zeros; the
        notes of the source count them.

    Raises:
      SourceError: a file cannot be used, or the files do not match, here or when the source is read; the
        message names file and row.
    """
    votes = read_votes(votes_csv)
    if pixels_csv is not None:
        reference = open_source(pixels_csv)
        if reference.kind not in _BY_ROW:
            raise SourceError(f"{pixels_csv} is not the challenge's fer2013.csv")
        return _by_pixels(source, _by_row(reference, votes), votes)
    if source.kind in _BY_ROW:
        return _by_row(source, votes)
    raise SourceError(
        f"{source.path} has no rows that match those of {votes.path.name}: add --ferplus_pixels fer2013.csv, "
        "the challenge's file, to match images by pixels"
    )


def read_votes(path: str | Path) -> Votes:
    """Reads fer2013new.csv; the columns may be in any order.

    Raises:
      SourceError: the file cannot be read, or has other content; the message names the row.
    """
    path = Path(path).expanduser()
    try:
        table = open_csv(path)
        names = ["usage", *(name.casefold() for name in ferplus.COLUMNS)]
        if missing := [name for name in names if name not in table.header]:
            raise SourceError(
                f"{path} row 1: the header has no column {', '.join(missing)}; expected FER+'s "
                f"fer2013new.csv: Usage, Image name, {', '.join(ferplus.COLUMNS)}"
            )
        columns, width = [table.header.index(name) for name in names], len(table.header)
        rows = [(n, *_parse(row, columns, width, f"{path} row {n}")) for n, row in table.rows()]
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; give FER+'s fer2013new.csv") from error
    except CsvError as error:
        raise SourceError(str(error)) from error
    if not rows:
        raise SourceError(f"{path} has a header, but no votes; download FER+'s fer2013new.csv again")
    numbers, splits, counts = map(list, zip(*rows, strict=True))
    return Votes(path, splits, np.array(counts, np.uint8), numbers)


def _parse(row: list[str], columns: list[int], width: int, where: str) -> tuple[str, list[int]]:
    """Returns a row's split and votes."""
    if len(row) < width:
        raise SourceError(f"{where}: {len(row)} fields, expected {width}; download FER+'s file again")
    usage, *texts = (row[column].strip() for column in columns)
    split = split_name(usage)
    if split is None:
        raise SourceError(f"{where}: Usage is {usage!r}, expected Training, PublicTest or PrivateTest")
    for name, text in zip(ferplus.COLUMNS, texts, strict=True):
        if not (text.isascii() and text.isdigit() and int(text[:9]) <= 255):
            raise SourceError(f"{where}: {name} is {text[:20]!r}, expected a number of votes (0 to 10)")
    return split, [int(text) for text in texts]


# --- by row ---


def _by_row(source: Source, votes: Votes) -> Source:
    elected = ferplus.labels(votes.counts, "ferplus_argmax8", 8)[0]

    def read() -> Iterator[Record | PictureError]:
        index, judged, agreeing = -1, 0, 0
        for index, item in enumerate(source.read()):
            if index == len(votes.rows):
                raise SourceError(
                    f"{source.path} has more rows than {votes.path}, which ends with row {votes.rows[-1]}: "
                    "give the complete fer2013new.csv"
                )
            if isinstance(item, Record):
                _check_split(item, votes, index)
                item.votes = votes.counts[index]
                judged += elected[index] != ferplus.LEFT_OUT
                agreeing += elected[index] == item.label
            yield item
        # Entire splits may be missing at the end; a truncated split could be a selection.
        count = index + 1
        if 0 < count < len(votes.rows) and votes.splits[count] == votes.splits[count - 1]:
            raise SourceError(
                f"{source.path} ends where {votes.where(count)} continues with the same Usage: each split in "
                f"the file must be complete; {_OTHERWISE}"
            )
        if judged >= _ENOUGH and agreeing < _AGREEMENT * judged:
            raise SourceError(
                f"the rows of {source.path} and {votes.path} do not match: their emotions agree for "
                f"{agreeing / judged:.0%} of the images, but for 63% in the challenge's file. The rows must "
                f"be in its order; {_OTHERWISE}"
            )

    note = f"FER+ votes of {votes.path.name} joined by row"
    return dataclasses.replace(source, read=read, notes=[*source.notes, note])


def _check_split(record: Record, votes: Votes, index: int) -> None:
    if record.split is None:
        raise SourceError(
            f"{record.where} has no Usage to check that it matches {votes.where(index)}: the "
            f"file needs that column; {_OTHERWISE}"
        )
    if record.split != votes.splits[index]:
        raise SourceError(
            f"{record.where} is in {record.split}, but {votes.where(index)} in {votes.splits[index]}: the "
            f"rows must be those of the challenge's file, in its order; {_OTHERWISE}"
        )


# --- by pixels ---


def _by_pixels(source: Source, reference: Source, votes: Votes) -> Source:
    rows = _read_all(reference, "reading the CSV")
    images = _read_all(source, "reading the images")
    by_name = source.kind == "kaggle_folders"

    def comparable(image: Record, row: Record) -> bool:
        return not by_name or image.split == row.split

    found: dict[str, np.ndarray] = {}
    counts: collections.Counter[str] = collections.Counter()
    for image, how, of_row in _match(images, rows, comparable):
        counts[how] += 1
        if of_row is not None:
            found[image.id] = of_row
    if not found:
        raise SourceError(
            f"no image of {source.path} is in {reference.path}: FER+ has votes only for FER2013; drop "
            "--ferplus"
        )
    nothing = np.zeros(len(ferplus.COLUMNS), np.uint8)

    def read() -> Iterator[Record | PictureError]:
        for item in source.read():
            if isinstance(item, Record):
                item.votes = found.get(item.id, nothing)
            yield item

    note = (
        f"FER+ votes of {votes.path.name} joined by the pixels in {Path(reference.path).name}: "
        f"{counts['same']:,} images by identical pixels, {counts['similar']:,} by a correlation of at "
        f"least {SAME_IMAGE}; no votes for {counts['unknown']:,} images that are not in it, and for "
        f"{counts['ambiguous']:,} that match rows with different votes"
    )
    return dataclasses.replace(source, read=read, notes=[*source.notes, note])


def _read_all(source: Source, what: str) -> list[Record]:
    """Returns the good records, with images uint8 [48, 48]; the dataset build reports bad ones."""
    records = source.records(lambda bad: None)
    found = [
        dataclasses.replace(record, image=shrink(record.image))
        for record in tqdm(records, what, source.total, unit=" images", disable=None)
    ]
    if not found:
        raise SourceError(f"{source.path}: no image can be used")
    return found


def _match(
    images: list[Record], rows: list[Record], comparable: Callable[[Record, Record], bool]
) -> Iterator[tuple[Record, str, np.ndarray | None]]:
    """Yields each image, the kind of match (same, similar, ambiguous, or unknown), and its votes."""
    of_digest: dict[bytes, list[Record]] = collections.defaultdict(list)
    for row in rows:
        of_digest[pixel_digest(row.image)].append(row)
    rest = []
    for image in images:
        if same := [row for row in of_digest.get(pixel_digest(image.image), ()) if comparable(image, row)]:
            votes = _agreed(same, image)
            yield image, "ambiguous" if votes is None else "same", votes
        else:
            rest.append(image)
    similar: list[list[tuple[Record, float]]] = [[] for _ in rest]
    if rest:
        pixels, others = (np.stack([record.image for record in records]) for records in (rest, rows))
        for pairs in near_pairs(pixels, SAME_IMAGE, others=others, progress=True):
            for i, j, correlation in zip(*(values.tolist() for values in pairs), strict=True):
                if comparable(rest[i], rows[j]):
                    similar[i].append((rows[j], 1 - correlation))
    for image, found in zip(rest, similar, strict=True):
        limit = 1.25 * min((distance for _, distance in found), default=0) + _AS_SIMILAR
        votes = _agreed([row for row, distance in found if distance <= limit], image)
        yield image, "unknown" if not found else "ambiguous" if votes is None else "similar", votes


def _agreed(found: list[Record], image: Record) -> np.ndarray | None:
    """Returns the votes if the rows, or those with the image's label and split, agree; otherwise None."""
    alike = [row for row in found if row.label == image.label and image.split in (None, row.split)]
    for chosen in (found, alike):
        if len({row.votes.tobytes() for row in chosen if row.votes is not None}) == 1:
            return chosen[0].votes
    return None
