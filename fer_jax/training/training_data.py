"""The faces that a configuration names: their labels, and the cleaning of the training split."""

import logging
from typing import Any

from ml_collections import ConfigDict

from fer_jax.data import exclude_list, ferplus, splits
from fer_jax.data.dataset import read
from fer_jax.data.faces import Faces


def load_split(config: ConfigDict, split: str) -> Faces:
    """Loads a split with the labels of `config.data.labels`; faces without such a label are left out.

    Raises:
      As `read.load`.
      ValueError: the faces are in color and the model takes gray ones, or they have no such label.
    """
    faces = read.load(config.data.dir, split, image_size=config.data.image_size)
    logging.info("%s: %d faces of %s", split, len(faces), faces.image_shape)
    channels, labels = faces.image_shape[-1], config.data.labels
    if channels not in (1, config.model.channels):
        raise ValueError(
            f"the faces of {config.data.dir} have {channels} channels and config.model.channels is "
            f"{config.model.channels}: set --config.model.channels={channels} or use gray data"
        )
    if labels == ferplus.GIVEN:
        return faces
    if faces.votes is None:
        raise ValueError(
            f"config.data.labels is {labels!r} and {config.data.dir} has no FER+ votes: prepare it with "
            "fer-jax prepare --ferplus fer2013new.csv"
        )
    labeled = ferplus.relabel(faces, labels, config.data.num_classes)
    logging.info("%s: %d faces with a label by %s", split, len(labeled), labels)
    if not len(labeled):
        raise ValueError(f"no face of {split} in {config.data.dir} has a label by {labels}")
    return labeled


def read_excluded(config: ConfigDict) -> exclude_list.ExcludeList | None:
    """Reads the ids in the file `config.data.drop_ids`; None without one.

    Raises:
      As `exclude_list.read`.
    """
    return exclude_list.read(config.data.drop_ids) if config.data.drop_ids else None


def clean(
    train: Faces, config: ConfigDict, excluded: exclude_list.ExcludeList | None
) -> tuple[Faces, dict[str, Any]]:
    """Returns the training split without what `config.data` leaves out, and metadata about that.

    Args:
      train: the split, see `load_split`.
      config: config.data.
      excluded: see `read_excluded`.

    Returns:
      The faces, and {"images": how many, "left_out": {"listed": n, "blank": n, "twin": n},
      "drop_ids_hash": of the list of ids, None without one}.

    Raises:
      As `exclude_list.exclude`.
    """
    listed = 0
    if excluded:  # before duplicates merge, so that a copy whose label is trusted stays
        count, train = len(train), exclude_list.exclude(train, excluded)
        listed = count - len(train)
    train, counts = splits.clean_train(
        train, drop_blank=config.drop_blank, merge_duplicates=config.merge_twins
    )
    left_out = {"listed": listed, **counts}
    if any(left_out.values()):
        logging.info("training faces after cleaning: %d, left out: %s", len(train), left_out)
    digest = excluded.digest if excluded else None
    return train, {"images": len(train), "left_out": left_out, "drop_ids_hash": digest}
