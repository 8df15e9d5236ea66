"""Defines a source of images and its records.

For each row or file, a reader yields a `Record` or a `PictureError`, so that a bad image does not end the
stream; `Source.records` decides whether to raise it.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from fer_jax.data.csv_file import CsvError
from fer_jax.data.decoding import PictureError

SPLITS = ("train", "validation", "test")

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
_SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
KNOWN_SPLITS = "; ".join(f"{split}: {', '.join(names)}" for split, names in _SPLIT_NAMES.items())


class SourceError(ValueError):
    """A source that cannot be used; the message says why and what to do."""


@dataclasses.dataclass
class Record:
    """One labeled image."""

    image: np.ndarray  # uint8 [H, W] (gray) or [H, W, 3] (RGB)
    label: int  # index into `emotions.EMOTIONS`
    split: str | None  # "train", "validation", "test", or None if unknown
    id: str  # stable name within the source, such as "Training/000123" or a relative path
    where: str  # file and row, or path, for messages
    # FER+ votes uint8 [10] (see `ferplus.COLUMNS`), zeros for an image without votes; None if the source has
    # no votes.
    votes: np.ndarray | None = None


@dataclasses.dataclass
class Source:
    """A source of labeled images."""

    # "fer2013_csv", "icml_csv", "kaggle_folders", "split_folders", "class_folders", "label_list", "parquet",
    # or "synthetic".
    kind: str
    path: str  # path or name, as given by the user
    total: int  # expected number of records, including bad ones, for a progress bar
    # Yields a `Record` or a `PictureError` for each row or image.
    read: Callable[[], Iterator[Record | PictureError]]
    # Notes for the user about how the source was interpreted.
    notes: list[str] = dataclasses.field(default_factory=list)

    def records(self, on_bad: Callable[[PictureError], None] | None = None) -> Iterator[Record]:
        """Yields the records; passes bad ones to `on_bad`, or raises the first one.

        Raises:
          PictureError: for the first bad row or image, if `on_bad` is None.
          SourceError: the source can no longer be read.
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
    """Returns the split for a folder name or Usage value (PublicTest is validation), or None."""
    return _SPLIT_OF.get(word.strip().casefold())
