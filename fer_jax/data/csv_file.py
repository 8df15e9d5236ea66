"""Reads CSV files with any common delimiter, line ending, and Unicode encoding."""

import codecs
import contextlib
import csv
import dataclasses
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from typing import Any

DELIMITERS = ",;\t|"
_FIELD_LIMIT = 1 << 24  # characters; the default of 131,072 would hide the content of a bad row


class CsvError(ValueError):
    """A file that cannot be read as CSV; the message names the file and, if known, the row."""


@dataclasses.dataclass(frozen=True)
class CsvFile:
    """A CSV file with a header; gzip-compressed if its name ends in .gz."""

    path: str
    encoding: str
    header_line: str  # the first row as text
    delimiter: str  # the most frequent of `DELIMITERS` in the first row
    names: list[str]  # the names in the first row, stripped
    line_count: int  # number of lines, approximately the number of rows

    @property
    def header(self) -> list[str]:
        """The names, casefolded."""
        return [name.casefold() for name in self.names]

    def rows(self, *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
        """Yields (row number as in an editor, fields) for each non-empty row below the header.

        Raises:
          CsvError: the file is damaged, or has an unclosed quote or, if `strict`, undecodable bytes or
            misplaced quotes; otherwise the caller checks each row.
          OSError: the file can no longer be read.
        """
        csv.field_size_limit(_FIELD_LIMIT)
        with self.text("strict" if strict else "replace") as file:
            lines = csv.reader(file, delimiter=self.delimiter, strict=strict)
            try:
                next(lines, None)
                yield from ((lines.line_num, row) for row in lines if row)
            except csv.Error as error:
                reason = f"{self.path}, row {lines.line_num}: not CSV ({error}); is there an unclosed quote?"
                raise CsvError(reason) from error

    @contextlib.contextmanager
    def text(self, errors: str = "strict") -> Iterator[io.TextIOWrapper]:
        """Opens the file as text, keeping line endings; raises as `rows`."""
        with _open(self.path) as file:
            yield io.TextIOWrapper(file, encoding=self.encoding, errors=errors, newline="")


def open_csv(path: str | os.PathLike) -> CsvFile:
    """Reads a CSV file's header.

    Raises:
      CsvError: the file is compressed and damaged.
      OSError: the file cannot be read.
    """
    with _open(path) as file:
        start = file.read(1 << 16)
        counts = [start.count(end) for end in (b"\n", b"\r")]
        while block := file.read(1 << 22):
            counts = [count + block.count(end) for count, end in zip(counts, (b"\n", b"\r"), strict=True)]
    encoding = _find_encoding(start)
    header_line = next(io.StringIO(start.decode(encoding, "replace"), newline=None), "").rstrip("\n")
    delimiter = max(DELIMITERS, key=header_line.count)
    names = next(csv.reader([header_line], delimiter=delimiter, skipinitialspace=True), [])
    names = [name.strip() for name in names]
    return CsvFile(os.fspath(path), encoding, header_line, delimiter, names, max(counts))


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[Any]:
    """Opens a file in binary mode, decompressed; errors name the file."""
    is_compressed = os.fspath(path).endswith(".gz")
    try:
        with gzip.open(path) if is_compressed else open(path, "rb") as file:
            yield file
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        kind = "compressed text" if is_compressed else "text in UTF-8 or UTF-16"
        raise CsvError(f"{path} cannot be read as {kind} ({error}): save or copy it again") from error


def _find_encoding(start: bytes) -> str:
    """Detects the encoding of a text from its first bytes, by the byte order mark or zero bytes."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if start[:1] == b"\0" else "utf-8-sig"
