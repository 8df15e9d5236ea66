"""Builds a dataset on disk from a source; `read.load` reads it back.

A dataset is a folder with a TFDS dataset (ArrayRecord, in fer/) and a manifest.json. It is built in a
temporary folder and moved when complete, so an interrupted build leaves no partial dataset.
"""

import contextlib
import errno
import functools
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fer_jax.data import ferplus
from fer_jax.data.dataset.read import FORMAT_VERSION, MANIFEST, TFDS_FOLDER, DatasetError, read_manifest
from fer_jax.data.dataset.staging import Entry, Staging, content_hash, split_hashes, statistics
from fer_jax.data.decoding import PictureError
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import ferplus_join
from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SPLITS, Source, SourceError
from fer_jax.data.splits import first_appearance, stratified_group_split
from fer_jax.io_utils import move_into_place, named_by
from fer_jax.locks import lock


def build(
    source_path: str | Path,
    out_dir: str | Path,
    *,
    class_map: Mapping[str, str] | None = None,
    splits: str | None = None,
    ferplus_csv: str | Path | None = None,
    ferplus_pixels: str | Path | None = None,
    skip_bad: bool = False,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Builds the dataset `out_dir` from `source_path` (see `recognize.open_source`).

    A source with a validation split keeps its splits. From a source with only train and test, the validation
    split is drawn from train; from a source without splits, both are drawn, see
    `splits.stratified_group_split`. If `out_dir` already has the same dataset, it is kept.

    Args:
      class_map: labels of classes, see `classes.parse`.
      splits: "folders" or "names", which determine the splits of Kaggle's files, see
        `folders.open_folders`.
      ferplus_csv: FER+'s fer2013new.csv, whose votes are joined to the images, see `ferplus_join.join`.
      ferplus_pixels: fer2013.csv, to join the votes by pixels.
      skip_bad: skip bad rows and images, which the manifest lists, instead of raising for the first.
      validation_fraction: fraction of images in the validation split, if it is drawn.
      test_fraction: likewise for the test split.
      seed: seed of the drawn splits, 0 or more.
      overwrite: whether to replace another dataset at `out_dir`; other files there are never changed.

    Returns:
      The manifest, as in manifest.json: name, source_kind, source, notes; annotations, ["ferplus"] where
      the faces have votes, else []; splits {name: {count, class_counts: {emotion: n}, hash, order_hash}},
      whose hashes ignore and include the order of images (see `staging.split_hashes`); content_hash, over
      all splits and votes; image_shape [H, W, C] (null if sizes differ), channels; pixel_mean and
      pixel_std in [0, 1], over pixel_statistics_split (train, if there is one); skipped [{where, reason}];
      drawn_splits {fractions, seed} or null; files {path: bytes}; format_version.

    Raises:
      SourceError: the source cannot be used.
      PictureError: for the first bad row or image, unless `skip_bad`.
      DatasetError: `out_dir` is occupied.
      OSError: it cannot be written; the message names it.
    """
    if not (validation_fraction >= 0 and test_fraction >= 0 and validation_fraction + test_fraction < 1):
        raise DatasetError(
            f"validation_fraction {validation_fraction} and test_fraction {test_fraction} must be "
            "0 or more, and sum to less than 1"
        )
    if seed < 0:
        raise DatasetError(f"seed {seed} must be 0 or more")
    source = open_source(source_path, class_map, splits)
    out = Path(out_dir).expanduser().resolve()
    _check_place(out, source)
    if ferplus_csv:
        source = ferplus_join.join(source, ferplus_csv, ferplus_pixels)
    elif ferplus_pixels:
        raise DatasetError("--ferplus_pixels needs --ferplus, the file of the votes")
    skipped: list[dict[str, str]] = []

    def note_bad(error: PictureError) -> None:
        skipped.append({"where": error.where, "reason": error.reason})

    with named_by("--out", out), _building_folder(out) as folder:
        staging = Staging(folder / "staging")
        records = source.records(note_bad if skip_bad else None)
        for record in tqdm(records, "reading", source.total, unit=" images", disable=None):
            staging.add(record)
        if not staging.entries:
            raise SourceError(f"{source.path}: no image can be used ({len(skipped)} are bad)")
        fractions = {"validation": validation_fraction, "test": test_fraction}
        split_of, drawn = _assign_splits(staging.entries, fractions, seed)
        manifest = _describe(source, staging.entries, split_of, skipped)
        manifest["drawn_splits"] = {"fractions": drawn, "seed": seed} if drawn else None
        kept = _existing(out, manifest["content_hash"], overwrite)
        if kept is not None:
            print(f"{out} already has this dataset (same images, labels, and splits): nothing was changed")
            return kept
        _write_tfds(folder, staging, split_of, manifest)
        staging.remove()
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        manifest["files"] = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        _move_into_place(folder, out)
    return manifest


# --- output folder ---


def _check_place(out: Path, source: Source) -> None:
    """Refuses an output folder that contains something else."""
    if source.kind != "synthetic" and Path(source.path).is_dir():
        root = Path(source.path).expanduser().resolve()
        if out == root or root in out.parents:
            raise DatasetError(f"--out {out} is inside the source {root}: choose another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise DatasetError(f"{out} is a file: choose another --out")
    found = {entry.name for entry in out.iterdir()}
    others = sorted(found - {MANIFEST, TFDS_FOLDER})
    if others or (found and not (out / MANIFEST).is_file()):
        raise DatasetError(
            f"{out} contains other files ({', '.join(others[:3]) or TFDS_FOLDER}), which are not "
            "deleted: choose another --out, or empty the folder"
        )


def _existing(out: Path, new_hash: str, overwrite: bool) -> dict[str, Any] | None:
    """Returns the manifest at `out` if it is this dataset and complete; None if there is nothing to keep."""
    if not (out / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(out)
    except DatasetError as error:
        if overwrite:
            return None
        raise DatasetError(f"{error}, with --overwrite") from error
    if manifest["content_hash"] == new_hash:
        return manifest
    if overwrite:
        return None
    raise DatasetError(
        f"{out} contains another dataset (made from {manifest['source']}, content hash "
        f"{manifest['content_hash'][:12]}; this one has {new_hash[:12]}); choose another "
        "--out, or give --overwrite to replace it"
    )


@contextlib.contextmanager
def _building_folder(out: Path) -> Iterator[Path]:
    """Yields an empty, locked temporary folder next to `out`; removes it at the end."""
    folder = out.parent / f".{out.name}.building"
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, DatasetError(f"another process is building {out}: wait for it")) as descriptor:
        try:
            for entry in folder.iterdir():  # left by an interrupted build
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            yield folder
        finally:
            # already moved after success; another process may be building there
            if folder.exists() and os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(folder: Path, out: Path) -> None:
    """Renames the folder; a replaced dataset is renamed first, then deleted."""
    old = out.parent / f".{out.name}.replaced"
    if (out / MANIFEST).exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
    move_into_place(folder, out)
    shutil.rmtree(old, ignore_errors=True)


# --- content ---


def _assign_splits(
    entries: list[Entry], fractions: dict[str, float], seed: int
) -> tuple[list[str], dict[str, float]]:
    """Returns each entry's split, and the fractions of the drawn splits ({} for none)."""
    given, drawn = {entry.split for entry in entries}, {}
    if given <= {None, "train"}:
        drawn = {name: share for name, share in fractions.items() if share}
    elif given == {"train", "test"} and fractions["validation"]:
        drawn = {"validation": fractions["validation"]}
    splits = np.array([entry.split or "train" for entry in entries], dtype=object)
    if drawn:
        pool = np.flatnonzero(splits == "train")
        labels = np.array([entries[i].label for i in pool])
        groups = first_appearance(entries[i].digest for i in pool)
        shares = {"train": 1 - sum(drawn.values()), **drawn}
        for name, members in stratified_group_split(labels, groups, shares, seed).items():
            if not len(members):
                raise SourceError(
                    f"{len(pool)} images are too few to draw a {name} split of {shares[name]:.0%} "
                    "from; add images, or set its fraction to 0"
                )
            splits[pool[members]] = name
    return list(splits), drawn


def _describe(
    source: Source, entries: list[Entry], splits: list[str], skipped: list[dict[str, str]]
) -> dict[str, Any]:
    """Returns the manifest without drawn_splits and files."""
    channels = 3 if any(len(entry.shape) == 3 for entry in entries) else 1
    sizes = {entry.shape[:2] for entry in entries}
    members: dict[str, list[Entry]] = {name: [] for name in SPLITS}
    for entry, split in zip(entries, splits, strict=True):
        members[split].append(entry)
    members = {name: found for name, found in members.items() if found}
    measured = next(iter(members))
    mean, std = statistics(members[measured])
    return {
        "format_version": FORMAT_VERSION,
        "name": Path(source.path).resolve().name.removesuffix(".csv"),
        "source_kind": source.kind,
        "source": source.path,
        "splits": {
            name: {
                "count": len(found),
                "class_counts": {
                    emotion: sum(entry.label == label for entry in found)
                    for label, emotion in enumerate(EMOTIONS)
                },
                **split_hashes(found),
            }
            for name, found in members.items()
        },
        "image_shape": [*sizes.pop(), channels] if len(sizes) == 1 else None,
        "channels": channels,
        "pixel_mean": mean,
        "pixel_std": std,
        "pixel_statistics_split": measured,
        "content_hash": content_hash(entries, splits),
        "skipped": skipped,
        "notes": source.notes,
        "annotations": [ferplus.ANNOTATION] if entries[0].votes is not None else [],
    }


def _write_tfds(folder: Path, staging: Staging, splits: list[str], manifest: dict[str, Any]) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_datasets as tfds

    from fer_jax.data.dataset.tfds import FerBuilder

    tfds.disable_progress_bar()
    channels, votes = manifest["channels"], ferplus.ANNOTATION in manifest["annotations"]
    bar = tqdm(total=len(splits), unit=" images", desc="writing", disable=None)

    def examples_of(name: str) -> Iterator[dict[str, Any]]:
        for entry, split in zip(staging.entries, splits, strict=True):
            if split == name:
                example: dict[str, Any] = {
                    "image": staging.png(entry, channels),
                    "label": entry.label,
                    "id": entry.id,
                }
                if votes and entry.votes is not None:
                    example["votes"] = np.frombuffer(entry.votes, np.uint8)
                yield example
                bar.update()

    examples: Any = {name: functools.partial(examples_of, name) for name in manifest["splits"]}
    builder = FerBuilder(examples=examples, channels=channels, votes=votes, data_dir=folder)
    try:
        # TFDS prints the temporary folder
        with bar, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except RuntimeError as error:  # from ArrayRecord
        cause = re.search(r"No space left on device", str(error))
        raise OSError(errno.ENOSPC, cause[0]) if cause else error from error
    shutil.rmtree(folder / "downloads", ignore_errors=True)  # empty, from TFDS
