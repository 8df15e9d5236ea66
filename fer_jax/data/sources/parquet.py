"""Reads Parquet files of encoded images and labels, as on the Hugging Face Hub."""

import collections
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax.data.decoding import PictureError, decode
from fer_jax.data.sources import classes
from fer_jax.data.sources.record import Record, Source, SourceError, split_name

INSTALL = "pip install 'fer_jax[huggingface]'"
_IMAGES = ("image", "img", "picture", "face")
_LABELS = ("label", "labels", "emotion", "expression", "class")
_BATCH = 64  # images in memory


class _File:
    """A Parquet file; the names of the file and its folder may have its split."""

    def __init__(self, path: Path):
        """Opens the file and finds its columns.

        Raises:
          SourceError: the file has no image column or no label column.
          pyarrow.ArrowException, OSError: the file cannot be read.
        """
        import pyarrow.parquet

        self.path = path
        words = re.split(r"[\W_]", path.stem)[0], path.parent.name
        self.split = next(filter(None, map(split_name, words)), None)
        self._file = pyarrow.parquet.ParquetFile(path)
        schema = self._file.schema_arrow
        features = _features(schema.metadata)
        self._image = _column(path, schema.names, features, "Image", _IMAGES)
        self._label = _column(path, schema.names, features, "ClassLabel", _LABELS)
        names = features.get(self._label, {}).get("names")
        self._names = names if isinstance(names, list) else None

    def labels(self) -> Iterator[str | None]:
        """Yields the label of each row as text, None if missing."""
        for batch in self._file.iter_batches(columns=[self._label]):
            yield from map(self._text, batch.column(self._label).to_pylist())

    def rows(self) -> Iterator[tuple[str | None, Any]]:
        """Yields the label and the stored image of each row."""
        for batch in self._file.iter_batches(_BATCH, columns=[self._image, self._label]):
            labels = batch.column(self._label).to_pylist()
            for label, image in zip(labels, batch.column(self._image), strict=True):
                value = image.as_py()
                yield self._text(label), value.get("bytes") if isinstance(value, dict) else value

    def _text(self, label: Any) -> str | None:
        if self._names is not None and isinstance(label, int):
            return str(self._names[label]) if 0 <= label < len(self._names) else None
        return None if label is None else str(label).strip() or None


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """Returns the column features that the library datasets stores; {} for other writers."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _column(
    path: Path,
    columns: Sequence[str],
    features: Mapping[str, dict[str, Any]],
    kind: str,
    names: Sequence[str],
) -> str:
    """Returns the column with one of the names, or else the first of this kind."""
    lowered = {name.casefold(): name for name in reversed(columns)}
    of_kind = [name for name in columns if features.get(name, {}).get("_type") == kind]
    found = [*(lowered[name] for name in names if name in lowered), *of_kind]
    if not found:
        raise SourceError(
            f"{path} has the columns {', '.join(columns)}; expected a column of images, named "
            f"{' or '.join(_IMAGES)}, and one of labels, named {' or '.join(_LABELS)}"
        )
    return found[0]


def open_parquet(paths: Sequence[Path], where: Path, class_map: Mapping[str, str] | None = None) -> Source:
    """Opens Parquet files.

    The split of a file is in its name, such as train-00000-of-00001.parquet, or in the name of its folder.

    Args:
      paths: paths of the files.
      where: the file or folder given by the user.
      class_map: from `classes.parse`; takes precedence over names, and is required for numbers without names.

    Raises:
      SourceError: pyarrow is not installed, a file cannot be read, or a label is unknown.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise SourceError(f"{where}: Parquet files need the package pyarrow: {INSTALL}") from error
    class_map = class_map or {}
    counts: collections.Counter[str | None] = collections.Counter()
    files = []
    for path in paths:
        try:
            files.append(_File(path))
            counts.update(files[-1].labels())
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _explained(path, error) from error
    known = {name: count for name, count in counts.items() if name is not None}
    if not known:
        raise SourceError(f"{where} has no image with a label")
    labels = classes.labels(where, set(known), class_map, {}, noun="label")
    notes = classes.notes(class_map, {classes.key(name): count for name, count in known.items()})
    total = counts[None] + sum(count for name, count in known.items() if labels[name] is not None)

    def read_all() -> Iterator[Record | PictureError]:
        for file in files:
            name = file.path.name
            try:
                for number, (label, image) in enumerate(file.rows()):
                    place = f"{name} row {number}"
                    if label is None:
                        yield PictureError(place, "no label; does this split have labels?")
                    elif not isinstance(image, bytes):
                        reason = f"the image is a {type(image).__name__}, expected the bytes of an image file"
                        yield PictureError(place, reason)
                    elif (emotion := labels[label]) is not None:
                        try:
                            pixels = decode(image, place)
                            yield Record(pixels, emotion, file.split, f"{file.path.stem}/{number:06d}", place)
                        except PictureError as error:
                            yield error
            except (pyarrow.ArrowException, OSError) as error:
                raise _explained(file.path, error) from error

    return Source("parquet", str(where), total, read_all, notes)


def _explained(path: Path, error: Exception) -> SourceError:
    if isinstance(error, SourceError):
        return error
    return SourceError(
        f"{path} cannot be read ({error}); expected a complete Parquet file: download it again"
    )
