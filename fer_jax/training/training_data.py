"""Loads the faces that a config names, and cleans the training split."""

import logging
from typing import Any

from ml_collections import ConfigDict

from fer_jax.data import exclude_list, ferplus, splits
from fer_jax.data.dataset import read
from fer_jax.data.faces import Faces


def load_split(config: ConfigDict, split: str) -> Faces:
    """Loads a split with the labels of `config.data.labels`, without unlabeled faces.

    Raises:
      As `read.load`.
      ValueError: the faces are in color but the model takes gray faces, or no face has a label.
    """
    faces = read.load(config.data.dir, split, image_size=config.data.image_size)
    logging.info("%s: %d faces of %s", split, len(faces), faces.image_shape)
    channels, labels = faces.image_shape[-1], config.data.labels
    if channels not in (1, config.model.channels):
        raise ValueError(
            f"the faces of {config.data.dir} have {channels} channels, but config.model.channels is "
            f"{config.model.channels}: set --config.model.channels={channels}, or use gray data"
        )
    if labels == ferplus.GIVEN:
        return faces
    if faces.votes is None:
        raise ValueError(
            f"config.data.labels is {labels!r}, but {config.data.dir} has no FER+ votes: prepare it with "
            "fer-jax prepare --ferplus fer2013new.csv"
        )
    labeled = ferplus.relabel(faces, labels, config.data.num_classes)
    logging.info("%s: %d faces with a %s label", split, len(labeled), labels)
    if not len(labeled):
        raise ValueError(f"no face of {split} in {config.data.dir} has a {labels} label")
    return labeled


def read_excluded(config: ConfigDict) -> exclude_list.ExcludeList | None:
    """Reads the IDs in the file `config.data.drop_ids`; returns None without one.

    Raises:
      As `exclude_list.read`.
    """
    return exclude_list.read(config.data.drop_ids) if config.data.drop_ids else None


def clean(
    train: Faces, config: ConfigDict, excluded: exclude_list.ExcludeList | None
) -> tuple[Faces, dict[str, Any]]:
    """Removes images from the training split of `load_split` as `config.data` and `read_excluded` say.

    Returns:
      The faces, and {"images": their number, "left_out": {"listed": n, "blank": n, "twin": n},
      "drop_ids_hash": hash of the list of IDs, None without one}.

    Raises:
      As `exclude_list.exclude`.
    """
    listed = 0
    if excluded:  # before merging duplicates, so that unlisted duplicates are kept
        count, train = len(train), exclude_list.exclude(train, excluded)
        listed = count - len(train)
    train, counts = splits.clean_train(
        train, drop_blank=config.drop_blank, merge_duplicates=config.merge_twins
    )
    left_out = {"listed": listed, **counts}
    if any(left_out.values()):
        logging.info("training faces after cleaning: %d, removed: %s", len(train), left_out)
    digest = excluded.digest if excluded else None
    return train, {"images": len(train), "left_out": left_out, "drop_ids_hash": digest}
