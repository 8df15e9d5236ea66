"""Evaluates every model on every dataset."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import plotting, tables
from fer_jax.data import splits
from fer_jax.data.dataset import read
from fer_jax.data.emotions import CONTEMPT, EMOTIONS, class_names
from fer_jax.data.ferplus import GIVEN
from fer_jax.evaluation import labelled_split, leakage_policy, predictions_file
from fer_jax.evaluation.compare import model_results
from fer_jax.evaluation.metrics import bootstrap
from fer_jax.evaluation.report import report
from fer_jax.io_utils import write_atomically, write_json
from fer_jax.pretrained.loaded_model import LoadedModel

PICTURE = "cross.png"
_FIGURES = {"accuracy": "Accuracy", "macro_f1": "Macro F1"}
# How training used a dataset, and the remark for it in a cell.
_PARTS = {
    "trained on this split": "trained here",
    "selected on this split": "selected here",
    "trained on this dataset": "own data",
    "copies": "copies",
    "no part": "",
    "not known": "?",
}
CONTEMPT_CHOICES = {
    "drop": f"{CONTEMPT} is dropped, and the other probabilities are renormalized",
    "wrong": f"{CONTEMPT} counts as an error",
}


def evaluate(
    checkpoints: Sequence[pathlib.Path],
    data_dirs: Sequence[pathlib.Path],
    split: str,
    out_dir: pathlib.Path,
    *,
    contempt: str,
    batch_size: int,
) -> dict[str, Any]:
    """Evaluates every checkpoint on every dataset; writes predictions to out_dir/CHECKPOINT/DATASET.csv.

    Args:
      checkpoints: sources as in `LoadedModel`.
      data_dirs: dataset folders from `build.build`.
      split: split of each dataset.
      out_dir: folder for the predictions.
      contempt: one of `CONTEMPT_CHOICES`, for networks with this eighth class.
      batch_size: images per batch.

    Returns:
      'split'; 'checkpoints' and 'datasets' (names, in order); 'notes' on datasets and checkpoints; 'cells',
      a dictionary for each pair: 'checkpoint', 'dataset', 'part' (one of `_PARTS`), 'copies' (see
      `leakage_policy.assess`), 'num_examples', 'accuracy' and 'macro_f1' with their 'interval_95' over groups
      of identical images, and 'without_near', the same without images that have a duplicate in a split that
      influenced the weights; None if unknown or no image remains.

    Raises:
      As `LoadedModel` and `labelled_split.load_split`; a missing split before any prediction.
    """
    models = dict(zip(_names(checkpoints), map(LoadedModel, checkpoints), strict=True))
    manifests = dict(zip(_names(data_dirs), map(read.read_manifest, data_dirs), strict=True))
    for name, manifest in manifests.items():
        if split not in manifest["splits"]:
            there = ", ".join(manifest["splits"])
            raise read.DatasetError(f"{name} has no {split} split; it has: {there}")
    notes = [f"{name}: {note}" for name, manifest in manifests.items() for note in manifest["notes"]]
    cells = []
    for name, trained in models.items():
        names = class_names(len(EMOTIONS) if contempt == "drop" else len(trained.metadata["emotions"]))
        if len(trained.metadata["emotions"]) > len(EMOTIONS):
            notes.append(f"{name}: {CONTEMPT_CHOICES[contempt]}")
        if trained.metadata.get("annotations"):
            notes.append(f"{name}: extra annotations, {', '.join(trained.metadata['annotations'])}")
        for (dataset, manifest), data_dir in zip(manifests.items(), data_dirs, strict=True):
            faces = labelled_split.load_split(trained, str(data_dir), split)
            probs = trained.predict(faces.images, num_classes=len(names), batch_size=batch_size)
            metadata = trained.metadata | {
                "trained_data": trained.metadata["data"],
                "data": read.describe(manifest),
                "split": split,
            }
            copies = labelled_split.find_duplicates(trained, faces.images, metadata, data_dirs)
            groups = splits.duplicate_groups(faces.images)
            folder = out_dir / name
            folder.mkdir(parents=True, exist_ok=True)
            of_images = (list(faces.ids), probs, faces.labels, list(names), groups, copies)
            predictions_file.write(folder / f"{dataset}.csv", predictions_file.Predictions(*of_images))
            drawn = bootstrap.resample(probs, faces.labels, groups)
            found = report.headline_figures(probs, faces.labels, drawn)
            noted = {"checkpoint": trained.source, "labels": GIVEN, "data_hash": manifest["content_hash"]}
            leakage_policy.record_test(metadata | noted, found["accuracy"], f"cross dataset, {dataset}")
            cell = {"checkpoint": name, "dataset": dataset, "num_examples": len(faces)}
            cell |= {"part": part_of(metadata, copies), "copies": leakage_policy.count_copies(copies)}
            cell |= report.select(found, tuple(_FIGURES))
            leak_free = None if copies is None else report.leak_free(probs, faces.labels, groups, copies)
            cells.append(cell | {"without_near": leak_free and leak_free["without_near"]})
    names = {"checkpoints": list(models), "datasets": list(manifests)}
    return {"split": split, **names, "notes": notes, "cells": cells}


def part_of(metadata: dict[str, Any], copies: np.ndarray | None) -> str:
    """Returns how training used a dataset: one of `_PARTS`; as in `leakage_policy.assess`."""
    judged = leakage_policy.assess(metadata, copies)
    if judged["trained_on_this_split"]:
        return "trained on this split"
    if judged["selected_on_this_split"]:
        return "selected on this split"
    used = [one.hash for one in leakage_policy.used_splits(metadata) if one.hash]
    if leakage_policy.find_splits(used, metadata["data"]):
        return "trained on this dataset"
    if copies is None:
        return "not known"
    return "copies" if copies.any() else "no part"


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Returns a name for each path: its shortest unique end, without the suffix.

    Raises:
      ValueError: a path is given twice.
    """
    places = [path.absolute() for path in paths]
    if len(set(places)) < len(places):
        raise ValueError(
            f"given twice: {', '.join(str(p) for p in paths)}; each checkpoint and dataset counts once"
        )
    stems = [place.with_suffix("") if place.suffix == ".safetensors" else place for place in places]
    if len(set(stems)) < len(stems):  # a run directory and a file with the same name
        stems = places
    return [name.replace("/", "-") for name in model_results.shorten([stem.parts[1:] for stem in stems])]


def write(out_dir: pathlib.Path, found: dict[str, Any]) -> str:
    """Writes cross.md, cross.json, and cross.png from the result of `evaluate`; returns cross.md."""
    plot(found, out_dir / PICTURE)
    cells = {(cell["checkpoint"], cell["dataset"]): cell for cell in found["cells"]}
    page = tables.render(__package__, "cross.md.j2", found=found, cells=cells, parts=_PARTS, figures=_FIGURES)
    write_atomically(out_dir / "cross.md", page.encode())
    write_json(out_dir / "cross.json", found, sort_keys=False)
    return page


def plot(found: dict[str, Any], path: pathlib.Path) -> "plotting.Figure":
    """Plots accuracy and macro F1 as shaded tables, with a value and a remark in each cell."""
    names, datasets = found["checkpoints"], found["datasets"]
    cells = {(cell["checkpoint"], cell["dataset"]): cell for cell in found["cells"]}
    width, height = 3.6 + 3.0 * len(datasets), 1.9 + 0.75 * len(names)
    figure, axes = plotting.new_figure(max(width, 8), height, columns=2, sharey=True)
    for axis, (key, title) in zip(axes, _FIGURES.items(), strict=True):
        values = 100 * np.array([[cells[name, dataset][key] for dataset in datasets] for name in names])
        picture = axis.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            mark = _PARTS[cells[names[row], datasets[column]]["part"]]
            text, color = f"{value:.1f}" + (f"\n{mark}" if mark else ""), "white" if value > 55 else "black"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
        axis.set_xticks(range(len(datasets)), datasets, rotation=20, ha="right", rotation_mode="anchor")
        axis.set_title(title, fontsize=11)
    axes[0].set_yticks(range(len(names)), names)
    figure.suptitle(f"On {found['split']}, in percent (rows: models, columns: datasets)", fontsize=11)
    figure.colorbar(picture, ax=list(axes), shrink=0.9, label="percent")
    return plotting.save(figure, path)
