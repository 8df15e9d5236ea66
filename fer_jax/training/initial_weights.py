"""Loads the weights that a config names: initial weights and teachers."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from fer_jax.data import fer2013_reference
from fer_jax.data.emotions import class_names
from fer_jax.pretrained import imagenet
from fer_jax.pretrained.download import DownloadError
from fer_jax.pretrained.imagenet import Pretrained
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import find_weights
from fer_jax.pretrained.weights_file import DamagedCheckpointError


def pretrained(config: ConfigDict) -> Pretrained | None:
    """Loads the weights in `config.init.weights` or `config.init_from`; returns None if both are unset.

    Weights of a run keep their normalization and the conventions of their layers. Input size and
    interpolation are those of the config, so that a run can use another size.

    Returns:
      As `imagenet.find`; for weights of a run the metadata are "conventions", "preprocess", "missing" (none)
      and "run", that run's own.

    Raises:
      As `imagenet.find` and `LoadedModel`.
      FileNotFoundError: there are no weights at `config.init_from`.
      ValueError: the weights are for another model, or the config sets another mean or std.
    """
    if config.init_from:
        return _of_run(config)
    if config.init.weights == "none":
        return None
    try:
        return imagenet.find(config.init.weights, config.model.name)
    except DownloadError as error:
        raise DownloadError(f"{error}, or train from scratch with --config.init.weights=none") from error


def _of_run(config: ConfigDict) -> Pretrained:
    trained = _load("init_from", config.init_from)
    network, normalized = trained.metadata["model"], trained.metadata["preprocess"]
    if network["name"] != config.model.name:
        raise ValueError(
            f"config.init_from is {config.init_from!r}, weights of {network['name']}, but config.model.name "
            f"is {config.model.name}"
        )
    for name, default in (("mean", fer2013_reference.MEAN), ("std", fer2013_reference.STD)):
        if config.model[name] not in (default, normalized[name]):
            raise ValueError(
                f"config.model.{name} is {config.model[name]}, but the weights in config.init_from "
                f"({config.init_from}) were trained with {normalized[name]}: leave config.model.{name} at "
                f"its default, {default}"
            )
    metadata = {
        "conventions": {k: v for k, v in network["kwargs"].items() if k in imagenet.CONVENTIONS},
        "preprocess": {k: normalized[k] for k in ("mean", "std")}
        | {"interpolation": config.model.interpolation},
        "missing": [],
        "run": trained.metadata,
    }
    return Pretrained(trained.variables, metadata)


def teachers(config: ConfigDict, manifest: dict[str, Any]) -> list[LoadedModel]:
    """Loads the networks in `config.distill.teachers`, and compares them with the dataset's manifest.

    Raises:
      As `LoadedModel`.
      FileNotFoundError: a teacher does not exist.
      ValueError: a teacher has other classes than the student, does not support the faces, or is given twice.
    """
    found = [_load("distill.teachers", source) for source in config.distill.teachers]
    if len({teacher.digest for teacher in found}) < len(found):
        raise ValueError(f"config.distill.teachers is {config.distill.teachers}: a teacher is given twice")
    names, channels = list(class_names(config.data.num_classes)), manifest["channels"]
    for teacher in found:
        if teacher.metadata["emotions"] != names:
            raise ValueError(
                f"config.distill.teachers: {teacher.source} has the classes {teacher.metadata['emotions']}, "
                f"but the student {names}: see config.data.num_classes"
            )
        if channels not in (1, teacher.input_shape[-1]):
            raise ValueError(
                f"config.distill.teachers: {teacher.source} takes {teacher.input_shape[-1]} channel (gray), "
                f"but the faces of {config.data.dir} have {channels} (color)"
            )
    return found


def find_source(field: str, source: str) -> str:
    """Returns the path of the weights in a config field.

    Raises:
      FileNotFoundError: the weights do not exist; the message names the field.
    """
    with _naming(field):
        return find_weights(str(source))


def _load(field: str, source: str) -> LoadedModel:
    path = find_source(field, source)
    with _naming(field):
        return LoadedModel(path)


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Prefixes errors with the name of a config field."""
    try:
        yield
    except (FileNotFoundError, DamagedCheckpointError, ValueError) as error:
        kinds = FileNotFoundError, DamagedCheckpointError, ValueError
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"config.{field}: {error}") from error
