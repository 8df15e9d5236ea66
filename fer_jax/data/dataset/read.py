"""Reads a prepared dataset into memory, or streams it from disk; needs no TensorFlow."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fer_jax.data import faces as faces_lib
from fer_jax.data import ferplus
from fer_jax.io_utils import read_json

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
TFDS_FOLDER = "fer"  # tfds.FerBuilder.name

_BATCH = 512  # records fetched together
_FIELDS = frozenset(
    "name source_kind source splits image_shape channels pixel_mean pixel_std pixel_statistics_split "
    "content_hash skipped notes drawn_splits files".split()
)


class DatasetError(ValueError):
    """A dataset that cannot be written or read; the message says what to do."""


def read_manifest(data_dir: str | Path) -> dict[str, Any]:
    """Returns the manifest of a dataset, see `build.build`.

    Raises:
      FileNotFoundError: `data_dir` is not a dataset; the message gives the command that makes one.
      DatasetError: the dataset is damaged or has another version.
    """
    path = Path(data_dir).expanduser() / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{data_dir} is not a prepared dataset (no {MANIFEST} in it). Make it with:\n  "
            f"fer-jax prepare --source PATH/TO/fer2013.csv --out {data_dir}\nor, without "
            "data of your own, with --source synthetic"
        )
    advice = _repair(data_dir)
    try:
        manifest = read_json(path, advice)
        version = manifest["format_version"]
    except ValueError as error:
        raise DatasetError(str(error)) from error
    if version != FORMAT_VERSION:
        raise DatasetError(f"{path} has format version {version}, expected {FORMAT_VERSION}; {advice}")
    manifest.setdefault("annotations", [])  # missing in datasets of older versions
    if missing := sorted(_FIELDS - manifest.keys()):
        raise DatasetError(f"{path} is damaged (it lacks {', '.join(missing)}); {advice}")
    for name, size in manifest["files"].items():
        file = path.parent / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes"
            raise DatasetError(f"{file} {state}, expected {size} bytes; {advice}")
    return manifest


def describe(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a manifest that checkpoints and reports store."""
    return {key: manifest[key] for key in ("name", "source_kind", "splits")}


def load(
    data_dir: str | Path, split: str, *, image_size: int | None = None, max_bytes: int = 8 * 2**30
) -> faces_lib.Faces:
    """Loads a split of a dataset made by `build.build`, in the order of its source.

    Args:
      data_dir: the dataset's folder.
      split: "train", "validation" or "test".
      image_size: side in pixels to resize faces to (antialiased, without keeping the aspect ratio);
        needed only if images differ in size.
      max_bytes: a split whose decoded images are larger is streamed: its `images` decode on access.

    Raises:
      FileNotFoundError: `data_dir` is not a dataset.
      DatasetError: it is damaged, has no such split, or needs an `image_size`.
    """
    manifest = read_manifest(data_dir)
    if split not in manifest["splits"]:
        raise DatasetError(f"{data_dir} has no {split} split; it has: {', '.join(manifest['splits'])}")
    if image_size:
        shape = (image_size, image_size, manifest["channels"])
    elif manifest["image_shape"]:
        shape = tuple(manifest["image_shape"])
    else:
        raise DatasetError(
            f"the images of {data_dir} differ in size: set image_size, the side in pixels to resize them "
            "to; in training, --config.data.image_size=48"
        )
    source = _Source(data_dir, split)
    count = manifest["splits"][split]["count"]
    if len(source) != count:
        raise DatasetError(
            f"{data_dir}: {split} has {len(source)} images, but the manifest {count}; {_repair(data_dir)}"
        )
    keep = count * int(np.prod(shape)) <= max_bytes
    images = np.empty((count, *shape), np.uint8) if keep else StreamedImages(source, np.arange(count), shape)
    labels, ids = np.empty(count, np.int32), []
    votes = None
    if ferplus.ANNOTATION in manifest["annotations"]:
        votes = np.empty((count, len(ferplus.COLUMNS)), np.int32)
    for start in range(0, count, _BATCH):
        indices = range(start, min(start + _BATCH, count))
        for index, example in zip(indices, source.fetch(indices), strict=True):
            labels[index] = example["label"]
            ids.append(example["id"].decode())
            if votes is not None:
                votes[index] = example["votes"]
            if isinstance(images, np.ndarray):
                images[index] = _decode(example["image"], shape)
    return faces_lib.Faces(images, labels, faces_lib.one_hot(labels), ids, votes)


class StreamedImages:
    """Images uint8 [N, H, W, C] on disk, decoded when indexed by integers or slices."""

    dtype = np.dtype(np.uint8)

    def __init__(self, source: "_Source", places: np.ndarray, shape: tuple[int, int, int]):
        self._source = source
        self._places = places
        self.shape = (len(places), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: np.ndarray) -> "StreamedImages":
        """Returns the images at `indices` (int [M]), in that order, still on disk."""
        return StreamedImages(self._source, self._places[indices], self.shape[1:])

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = self._places[index]
        images = np.empty((chosen.size, *self.shape[1:]), np.uint8)
        flat = chosen.ravel().tolist()
        for start in range(0, len(flat), _BATCH):
            for place, example in enumerate(self._source.fetch(flat[start : start + _BATCH]), start):
                images[place] = _decode(example["image"], self.shape[1:])
        return images.reshape(*chosen.shape, *self.shape[1:])


class _Source:
    """The records of a split on disk.

    Raises, here and in `fetch`:
      DatasetError: they cannot be read.
    """

    def __init__(self, data_dir: str | Path, split: str):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TFDS may import TensorFlow
        import tensorflow_datasets as tfds

        self._data_dir, self._split = data_dir, split
        with self._naming_damage():
            folder = next((Path(data_dir).expanduser() / TFDS_FOLDER).iterdir())
            builder: Any = tfds.builder_from_directory(folder)
            decoders = {"image": tfds.decode.SkipDecoding()}
            self._records = builder.as_data_source(split=split, decoders=decoders)

    def __len__(self) -> int:
        return len(self._records)

    def fetch(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the records at `indices`: "image" (PNG), "label", "id", and "votes" if present."""
        with self._naming_damage():
            return self._records.__getitems__(indices)

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # TFDS and ArrayRecord raise many types, without the file name
            place = Path(self._data_dir, TFDS_FOLDER)
            raise DatasetError(
                f"the {self._split} split in {place} cannot be read ({error}); {_repair(self._data_dir)}"
            ) from error


def _repair(data_dir: str | Path) -> str:
    return f"delete {data_dir} and run fer-jax prepare again"


def _decode(png: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    mode = cv2.IMREAD_GRAYSCALE if shape[2] == 1 else cv2.IMREAD_COLOR_RGB
    image: Any = cv2.imdecode(np.frombuffer(png, np.uint8), mode)  # faster than Pillow
    if image.shape[:2] != shape[:2]:
        size = shape[1], shape[0]
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    return image.reshape(shape)
