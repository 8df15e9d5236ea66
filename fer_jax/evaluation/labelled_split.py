"""Loads a split for evaluation: faces at the network's size, and labels to score against."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from fer_jax.data import ferplus
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.faces import Faces
from fer_jax.evaluation import leakage, leakage_policy
from fer_jax.pretrained.loaded_model import LoadedModel


@dataclasses.dataclass(frozen=True)
class LabelledSplit:
    """A split and the labels to score a network against."""

    faces: Faces  # the labeled faces, with these labels
    kept: np.ndarray  # int [N], their indices in the split
    whole: Faces  # the entire split with its own labels
    rule: str  # `ferplus.GIVEN` or the FER+ rule of the labels
    names: list[str]  # the scored classes; the network may have one more
    metadata: dict[str, Any]  # metadata of the weights and the evaluation, for reports


def load_split(model: LoadedModel, data_dir: str | pathlib.Path, split: str) -> Faces:
    """Loads a split with its own labels, with faces at the size of the network's training.

    Raises:
      As `read.load`.
      ValueError: the faces are in color, but the network takes grayscale.
    """
    manifest = read.read_manifest(data_dir)
    channels = model.input_shape[-1]
    if manifest["channels"] not in (1, channels):
        raise ValueError(
            f"the faces of {data_dir} have {manifest['channels']} channels (color), but the network in "
            f"{model.source} takes {channels} (grayscale): convert the images to grayscale, or evaluate a "
            "network that was trained in color"
        )
    # The image size of the training; otherwise their own or, if they differ, the model's.
    size = model.metadata.get("loaded_size")
    if not size and not manifest["image_shape"]:
        size = model.input_shape[0]
    return read.load(data_dir, split, image_size=size)


def load_labelled(
    model: LoadedModel,
    data_dir: str | pathlib.Path,
    split: str,
    rule: str | None = None,
    num_classes: int | None = None,
) -> LabelledSplit:
    """Loads a split with the labels to score the network against.

    Args:
      model: the network.
      data_dir: the dataset's folder.
      split: its split.
      rule: `ferplus.GIVEN` or one of `ferplus.RULES`; None for the rule of the training. Faces without a
        label are excluded.
      num_classes: 8, or 7 to exclude contempt and faces with that label; None for the network's number, or 7
        with given labels, which lack contempt.

    Raises:
      As `load_split`.
      ValueError: the rule needs votes that the data lacks, no face has a label, or the network or the labels
        have fewer classes.
    """
    faces, names = load_split(model, data_dir, split), model.metadata["emotions"]
    rule = str(rule or model.metadata.get("labels", ferplus.GIVEN))
    known = len(EMOTIONS) if rule == ferplus.GIVEN else len(names)
    if (num_classes or known) > known:
        whose = f"labels {rule}" if known < len(names) else f"{model.source}"
        raise ValueError(f"cannot score {num_classes} classes: {whose} have {known}")
    names = list(names[: num_classes or known])
    manifest = read.read_manifest(data_dir)
    metadata = model.metadata | {
        "checkpoint": model.source,
        "split": split,
        "data": read.describe(manifest),
        "data_hash": manifest["content_hash"],
        "trained_data": model.metadata["data"],
        "trained_data_hash": model.metadata["data_hash"],
        "emotions": names,
        "labels": rule,
    }
    if rule == ferplus.GIVEN:
        return LabelledSplit(faces, np.arange(len(faces)), faces, rule, names, metadata)
    if faces.votes is None:
        raise ValueError(
            f"{rule} labels need FER+ votes, but {data_dir} has none: prepare it with "
            "fer-jax prepare --ferplus fer2013new.csv, or use --labels given"
        )
    kept = np.flatnonzero(ferplus.labels(faces.votes, rule, len(names))[0] != ferplus.LEFT_OUT)
    if not len(kept):
        raise ValueError(f"no face of {split} in {data_dir} has a {rule} label")
    return LabelledSplit(ferplus.relabel(faces, rule, len(names)), kept, faces, rule, names, metadata)


def find_duplicates(
    model: LoadedModel, images: Any, metadata: dict[str, Any], data_dirs: Iterable[str | pathlib.Path]
) -> np.ndarray | None:
    """Finds duplicates of images from `load_split` in other splits that influenced the weights.

    The datasets `data_dirs` are searched for those splits; `metadata` is as in `leakage_policy.assess`.

    Returns:
      int8 [N], indices into `leakage.KINDS`; None if one of those splits is not found.
    """
    wanted = {one.hash for one in leakage_policy.used_splits(metadata)}
    wanted.discard(leakage_policy.split_hash(metadata["data"], metadata["split"]))
    if None in wanted:
        return None
    copies = np.zeros(images.shape[0], np.int8)
    for data_dir in data_dirs:
        data = read.describe(read.read_manifest(data_dir))
        for found, name in leakage_policy.find_splits(wanted, data).items():
            others = load_split(model, data_dir, name).images
            copies = np.maximum(copies, leakage.find_duplicates(images, others))
            wanted.remove(found)
    return None if wanted else copies
