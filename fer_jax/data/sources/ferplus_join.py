"""Joins FER+'s votes to the images of a source, by row or by pixels."""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fer_jax.data import ferplus
from fer_jax.data.csv_file import CsvError, open_csv
from fer_jax.data.near_duplicates import near_pairs, shrink
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import BadRecordError, Record, Source, SourceError, split_name
from fer_jax.data.splits import pixel_digest

# JPEG of quality 95 leaves all images of FER2013 a correlation of .994 and more with their rows, JPEG of
# quality 75 one in 5,000 less than this. One in 50 has another image this like it; its own row is more so.
SAME_IMAGE = 0.97
# A row is as similar as the best one when its distance, 1 - correlation, is at most 1.25 times that of the
# best plus this: compression may reverse the order of such rows.
_AS_SIMILAR = 0.0005

_BY_ROW = ("fer2013_csv", "icml_csv")
# The votes elect FER2013's own label for .63 of the images, and for .23 where the rows are shuffled.
_AGREEMENT = 0.45
_ENOUGH = 100  # images to judge that by
_OTHERWISE = "for other copies name the challenge's file too, with --ferplus_pixels fer2013.csv"


@dataclasses.dataclass
class Votes:
    """The content of fer2013new.csv.

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
        """Returns the file and row of an image's votes, for messages."""
        return f"{self.path.name} row {self.rows[index]}"


def join(
    source: Source, votes_csv: str | Path, pixels_csv: str | Path | None = None, *, progress: bool = True
) -> Source:
    """Returns the source with FER+'s votes on its records.

    Args:
      source: of FER2013 or a copy of it. Without `pixels_csv` it must be a CSV file with a Usage column
        whose rows are those of `votes_csv`, in the same order; it may lack the last splits.
      votes_csv: Microsoft's fer2013new.csv.
      pixels_csv: the challenge's fer2013.csv, for sources of images: an image gets the votes of the row with
        the same pixels, else of the most similar row, if the correlation is at least `SAME_IMAGE`. Where
        several rows are (nearly) as similar, their votes have to be the same, or those of the rows with the
        image's split and label. Where Kaggle's file names tell an image's split, only rows of this split
        count. Images without a row get zeros; the source's notes count them.
      progress: show a progress bar.

    Raises:
      SourceError: a file cannot be used, or the two do not belong together; here or when the source is read.
        The message names file and row.
    """
    votes = read_votes(votes_csv)
    if pixels_csv is not None:
        reference = open_source(pixels_csv)
        if reference.kind not in _BY_ROW:
            raise SourceError(
                f"{pixels_csv} is not the challenge's fer2013.csv, in which to look for the images"
            )
        return _by_pixels(source, _by_row(reference, votes), votes, progress)
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
        raise SourceError(f"{path} has a header and no votes; download FER+'s fer2013new.csv again")
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
        # Missing rows are fine if they are whole splits at the end; a truncated split may be a selection.
        count = index + 1
        if 0 < count < len(votes.rows) and votes.splits[count] == votes.splits[count - 1]:
            raise SourceError(
                f"{source.path} ends where {votes.where(count)} continues with the same Usage: the file must "
                f"have all rows of each split that it has; {_OTHERWISE}"
            )
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


# --- by pixels ---


def _by_pixels(source: Source, reference: Source, votes: Votes, progress: bool) -> Source:
    rows = _read_all(reference, "reading the CSV", progress)
    images = _read_all(source, "reading the images", progress)
    by_name = source.kind == "kaggle_folders"

    def comparable(image: Record, row: Record) -> bool:
        return not by_name or image.split == row.split

    found: dict[str, np.ndarray] = {}
    counts: collections.Counter[str] = collections.Counter()
    for image, how, of_row in _match(images, rows, comparable, progress):
        counts[how] += 1
        if of_row is not None:
            found[image.id] = of_row
    if not found:
        raise SourceError(
            f"no image of {source.path} is in {reference.path}: FER+ has votes for FER2013 only; leave out "
            "--ferplus"
        )
    nothing = np.zeros(len(ferplus.COLUMNS), np.uint8)

    def read() -> Iterator[Record | BadRecordError]:
        for item in source.read():
            if isinstance(item, Record):
                item.votes = found.get(item.id, nothing)
            yield item

    note = (
        f"FER+ votes of {votes.path.name} joined by the pixels in {Path(reference.path).name}: "
        f"{counts['same']:,} images by the same pixels, {counts['similar']:,} by a correlation of "
        f"{SAME_IMAGE} and more; without votes are {counts['unknown']:,} images that are not in it and "
        f"{counts['ambiguous']:,} that fit rows with different votes"
    )
    return dataclasses.replace(source, read=read, notes=[*source.notes, note])


def _read_all(source: Source, what: str, progress: bool) -> list[Record]:
    """Returns the good records, their images uint8 [48, 48]; building the dataset reports the bad ones."""
    records = source.records(lambda bad: None)
    found = [
        dataclasses.replace(record, image=shrink(record.image))
        for record in tqdm(records, what, source.total, unit=" images", disable=not progress)
    ]
    if not found:
        raise SourceError(f"no image of {source.path} can be used")
    return found


def _match(
    images: list[Record], rows: list[Record], comparable: Callable[[Record, Record], bool], progress: bool
) -> Iterator[tuple[Record, str, np.ndarray | None]]:
    """Yields each image, how its row was found (same, similar, ambiguous, or unknown), and its votes."""
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
        for pairs in near_pairs(pixels, SAME_IMAGE, others=others, progress=progress):
            for i, j, correlation in zip(*(values.tolist() for values in pairs), strict=True):
                if comparable(rest[i], rows[j]):
                    similar[i].append((rows[j], 1 - correlation))
    for image, found in zip(rest, similar, strict=True):
        limit = 1.25 * min((distance for _, distance in found), default=0) + _AS_SIMILAR
        votes = _agreed([row for row, distance in found if distance <= limit], image)
        yield image, "unknown" if not found else "ambiguous" if votes is None else "similar", votes


def _agreed(found: list[Record], image: Record) -> np.ndarray | None:
    """Returns the votes that the rows have in common, else those of the image's label and split, if any."""
    alike = [row for row in found if row.label == image.label and image.split in (None, row.split)]
    for chosen in (found, alike):
        if len({row.votes.tobytes() for row in chosen if row.votes is not None}) == 1:
            return chosen[0].votes
    return None
