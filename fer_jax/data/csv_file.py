"""Reads CSV files as programs write them: any usual delimiter, line end, and Unicode encoding."""

import codecs
import csv
import dataclasses
import io
import os
from collections.abc import Iterator

DELIMITERS = ",;\t|"
_FIELD_LIMIT = 1 << 24  # characters; the default of 131,072 would hide what an odd row holds


class CsvError(ValueError):
    """A file that cannot be read as CSV; the message names the file and the row."""


@dataclasses.dataclass(frozen=True)
class CsvFile:
    """A CSV file with a header.

    Attributes:
      path: of the file.
      encoding: of its text.
      header_line: its first row as it is written.
      delimiter: that of `DELIMITERS` which its first row has most of.
      header: the names in its first row, without surrounding blanks, casefolded.
      line_count: how many lines it has, about the number of rows.
    """

    path: str
    encoding: str
    header_line: str
    delimiter: str
    header: list[str]
    line_count: int

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields (row number as in an editor, fields) for each row below the header that is not empty.

        Raises:
          CsvError: a quote that is never closed.
          OSError: the file can no longer be read.
        """
        csv.field_size_limit(_FIELD_LIMIT)
        with open(self.path, encoding=self.encoding, errors="replace", newline="") as file:
            lines = csv.reader(file, delimiter=self.delimiter)
            try:
                next(lines, None)
                yield from ((lines.line_num, row) for row in lines if row)
            except csv.Error as error:
                reason = f"{self.path}, row {lines.line_num}: not CSV ({error}); is a quote never closed?"
                raise CsvError(reason) from error


def open_csv(path: str | os.PathLike) -> CsvFile:
    """Reads a CSV file's header.

    Raises:
      OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(1 << 16)
        counts = [start.count(end) for end in (b"\n", b"\r")]
        while block := file.read(1 << 22):
            counts = [count + block.count(end) for count, end in zip(counts, (b"\n", b"\r"), strict=True)]
    encoding = find_encoding(start)
    header_line = next(io.StringIO(start.decode(encoding, "replace"), newline=None), "").rstrip("\n")
    delimiter = find_delimiter(header_line)
    names = next(csv.reader([header_line], delimiter=delimiter, skipinitialspace=True), [])
    header = [name.strip().casefold() for name in names]
    return CsvFile(os.fspath(path), encoding, header_line, delimiter, header, max(counts))


def find_encoding(start: bytes) -> str:
    """Returns the encoding of a text that begins with `start`, by its byte order mark or zero bytes."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if start[:1] == b"\0" else "utf-8-sig"


def find_delimiter(header_line: str) -> str:
    """Returns that of `DELIMITERS` which a header has most of, a comma where it has none."""
    return max(DELIMITERS, key=header_line.count)
