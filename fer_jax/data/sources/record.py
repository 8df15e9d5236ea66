"""Defines what a source of images yields.

A reader yields, for each row or file, either a `Record` or the `BadRecordError` that says what is
wrong with it, so that one bad image does not end the stream; `Source.records` decides whether it
stops the run.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from fer_jax.data.csv_file import CsvError

SPLITS = ("train", "validation", "test")

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
_SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
KNOWN_SPLITS = "; ".join(f"{split}: {', '.join(names)}" for split, names in _SPLIT_NAMES.items())


class SourceError(ValueError):
    """A source that cannot be used as a whole; the message says why and what to do."""


class BadRecordError(ValueError):
    """One row or image that cannot be used.

    Attributes:
      where: the file and row, or the image's path.
      reason: what was found and what was expected.
    """

    def __init__(self, where: str, reason: str):
        self.where, self.reason = where, reason
        super().__init__(f"{where}: {reason}")


@dataclasses.dataclass
class Record:
    """One labeled image.

    Attributes:
      image: uint8 [H, W] (gray) or [H, W, 3] (RGB).
      label: id of `emotions.EMOTIONS`.
      split: "train", "validation", "test", or None when the source does not say.
      id: stable name within the source, such as "Training/000123" or a relative path.
      where: file and row or path, for messages.
      votes: FER+'s, uint8 [10] (see `ferplus.COLUMNS`), zeros for an image that has none; None when the
        source has no votes.
    """

    image: np.ndarray
    label: int
    split: str | None
    id: str
    where: str
    votes: np.ndarray | None = None


@dataclasses.dataclass
class Source:
    """A readable source.

    Attributes:
      kind: "fer2013_csv", "icml_csv", "kaggle_folders", "split_folders", "class_folders", "label_list",
        "parquet", or "synthetic".
      path: where it is, as the user gave it.
      total: how many records to expect, including bad ones (for a progress bar).
      read: starts reading; yields a `Record` or a `BadRecordError` for each row or image.
      notes: what the user should know about how the source was understood.
    """

    kind: str
    path: str
    total: int
    read: Callable[[], Iterator[Record | BadRecordError]]
    notes: list[str] = dataclasses.field(default_factory=list)

    def records(self, on_bad: Callable[[BadRecordError], None] | None = None) -> Iterator[Record]:
        """Yields the records. Bad ones go to `on_bad`; without it the first one is raised.

        Raises:
          BadRecordError: for the first bad row or image, when `on_bad` is None.
          SourceError: when the source itself can no longer be read.
        """
        try:
            for item in self.read():
                if isinstance(item, Record):
                    yield item
                elif on_bad is None:
                    raise item
                else:
                    on_bad(item)
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror or error}") from error
        except CsvError as error:
            raise SourceError(str(error)) from error


def split_name(word: str) -> str | None:
    """Returns the split that a folder or Usage word stands for (PublicTest is validation), or None."""
    return _SPLIT_OF.get(word.strip().casefold())
