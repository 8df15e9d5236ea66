"""A split of a dataset as a network is judged on it: faces as it takes them, labels that it knows."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from fer_jax.data import ferplus
from fer_jax.data.dataset import builder
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.faces import Faces
from fer_jax.evaluation import leakage, leakage_policy
from fer_jax.loaded_model import LoadedModel


@dataclasses.dataclass(frozen=True)
class LabelledSplit:
    """A split as a network is judged on it.

    Attributes:
      faces: those that have a label, with the labels to judge by.
      kept: int [N], their places in the split.
      whole: the split with the labels that it came with.
      rule: `ferplus.GIVEN` or the name of a FER+ rule: where the labels to judge by are from.
      names: the classes; a network that tells one more apart is judged by these alone.
    """

    faces: Faces
    kept: np.ndarray
    whole: Faces
    rule: str
    names: list[str]


def load_split(model: LoadedModel, data_dir: str, split: str) -> Faces:
    """Loads a split of a dataset with its given labels, its faces as the network takes them.

    Raises:
      As `builder.load`.
      ValueError: the faces have colours and the network takes grey ones.
    """
    manifest = builder.read_manifest(data_dir)
    channels = model.input_shape[-1]
    if manifest["channels"] not in (1, channels):
        raise ValueError(
            f"the faces of {data_dir} have {manifest['channels']} channels (colour) and the model "
            f"of {model.source} takes {channels} (grey): prepare grey copies of the images, or evaluate "
            f"a model that was trained in colour"
        )
    # The size the training loaded faces at; otherwise their own or, if they differ, the model's.
    size = model.facts.get("loaded_size")
    if not size and not manifest["image_shape"]:
        size = model.input_shape[0]
    return builder.load(data_dir, split, image_size=size)


def load_labelled(
    model: LoadedModel, data_dir: str, split: str, rule: str | None = None, num_classes: int | None = None
) -> LabelledSplit:
    """Loads a split with the labels to judge the network by.

    Args:
      model: the network.
      data_dir: the dataset's folder.
      split: its split.
      rule: `ferplus.GIVEN` or one of `ferplus.RULES`; None for that of the training. Faces that it gives
        no label are left out.
      num_classes: to judge by: 8, or 7, which rules out contempt and leaves out faces with that label;
        None for the network's, and for 7 by given labels, which know no contempt.

    Raises:
      As `load_split`.
      ValueError: a FER+ rule for data without votes, or no face has a label by it; more classes than the
        network or the labels know.
    """
    faces, names = load_split(model, data_dir, split), model.facts["emotions"]
    rule = rule or model.facts.get("labels", ferplus.GIVEN)
    known = len(EMOTIONS) if rule == ferplus.GIVEN else len(names)
    if (num_classes or known) > known:
        whose = f"labels {rule}" if known < len(names) else f"{model.source}"
        raise ValueError(f"{num_classes} classes to judge by: {whose} know {known}")
    names = list(names[: num_classes or known])
    if rule == ferplus.GIVEN:
        return LabelledSplit(faces, np.arange(len(faces)), faces, rule, names)
    if faces.votes is None:
        raise ValueError(
            f"labels by {rule} need FER+ votes, and {data_dir} has none: prepare it with "
            "fer-jax prepare --ferplus fer2013new.csv, or give --labels given"
        )
    kept = np.flatnonzero(ferplus.labels(faces.votes, rule, len(names))[0] != ferplus.LEFT_OUT)
    if not len(kept):
        raise ValueError(f"no face of {split} in {data_dir} has a label by {rule}")
    return LabelledSplit(ferplus.relabel(faces, rule, len(names)), kept, faces, rule, names)


def find_duplicates(
    model: LoadedModel, images: Any, facts: dict[str, Any], data_dirs: Iterable[os.PathLike | str]
) -> np.ndarray | None:
    """Finds what each image shares with the splits that had a part in the weights.

    The split that the images are of is left out: what it had to do with the weights is said by itself.

    Args:
      model: the network.
      images: uint8 [N, H, W, C], as `load_split` gives them.
      facts: as `leakage_policy.assess` takes them.
      data_dirs: datasets to look for those splits in.

    Returns:
      int8 [N], places in `leakage.KINDS`; None where one of those splits is in none of the datasets.
    """
    used = {one.hash for one in leakage_policy.used_splits(facts)}
    wanted = used - {leakage_policy.split_hash(facts["data"], facts["split"])}
    if None in wanted:
        return None
    copies = np.zeros(images.shape[0], np.int8)
    for data_dir in data_dirs:
        at_hand = leakage_policy.find_splits(wanted, builder.describe(builder.read_manifest(data_dir)))
        for found, name in at_hand.items():
            others = load_split(model, data_dir, name).images
            copies = np.maximum(copies, leakage.find_duplicates(images, others))
            wanted.remove(found)
    return None if wanted else copies
