"""Stages a source on disk: validates images, encodes them as PNG into one file, and measures them.

Splits, statistics, and the content hash need all records, but not their pixels, so only about half a kilobyte
per image stays in memory.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from fer_jax.data.sources.record import Record
from fer_jax.data.splits import pixel_digest


@dataclasses.dataclass(slots=True)
class Entry:
    """A record without its pixels, which are in the staging file."""

    label: int
    split: str | None
    id: str
    shape: tuple[int, ...]
    digest: bytes  # of shape and pixels
    mean: float  # of the pixels, 0 to 255
    mean_square: float
    offset: int
    length: int
    votes: bytes | None  # FER+'s, ten counts


class Staging:
    """A file of concatenated PNG images, with an `Entry` for each."""

    def __init__(self, path: Path):
        self.entries: list[Entry] = []
        self._file = open(path, "w+b")  # noqa: SIM115 (`remove` closes it)
        self._path = path

    def add(self, record: Record) -> None:
        """Writes a record's image to the file and its entry to memory."""
        png, values = _encode_png(record.image), record.image.astype(np.float64)
        entry = Entry(
            record.label, record.split, record.id, record.image.shape, pixel_digest(record.image),
            float(values.mean()), float((values**2).mean()), self._file.tell(), len(png),
            None if record.votes is None else record.votes.tobytes(),
        )  # fmt: skip
        self._file.write(png)
        self.entries.append(entry)

    def png(self, entry: Entry, channels: int) -> bytes:
        """Returns the image as PNG with `channels` (1 or 3) channels."""
        self._file.seek(entry.offset)
        png = self._file.read(entry.length)
        if channels == 3 and len(entry.shape) == 2:
            return _encode_png(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")))
        return png

    def remove(self) -> None:
        """Deletes the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _encode_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def statistics(entries: Iterable[Entry]) -> tuple[float, float]:
    """Returns the mean and standard deviation of all pixel values, scaled to [0, 1]."""
    numbers = np.array([(e.shape[0] * e.shape[1], e.mean, e.mean_square) for e in entries])
    weights = numbers[:, 0] / numbers[:, 0].sum()
    mean = float(weights @ numbers[:, 1])
    variance = float(weights @ numbers[:, 2]) - mean**2
    return mean / 255, max(variance, 0.0) ** 0.5 / 255


def content_hash(entries: Iterable[Entry], splits: Iterable[str]) -> str:
    """Returns the SHA-256 over splits, labels, pixels, and votes, independent of order and IDs."""
    lines = (f"{s} {_line(e, e.votes)}" for e, s in zip(entries, splits, strict=True))
    return _sha256(sorted(lines))


def split_hashes(entries: Iterable[Entry]) -> dict[str, str]:
    """Returns the SHA-256 over the images of one split.

    "hash" covers labels and pixels in any order, without votes, so that leaks are found between datasets with
    and without votes. "order_hash" covers labels, pixels, and votes in this order.
    """
    entries = list(entries)
    return {
        "hash": _sha256(sorted(_line(e) for e in entries)),
        "order_hash": _sha256(_line(e, e.votes) for e in entries),
    }


def _line(entry: Entry, votes: bytes | None = None) -> str:
    return f"{entry.label} {entry.digest.hex()}{f' {votes.hex()}' if votes else ''}\n"


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()
