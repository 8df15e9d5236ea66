"""From a configuration to what a run is made of: the modules below take plain arguments."""

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

import fer_jax
from fer_jax import models
from fer_jax.data import augment, exclude_list, fer2013_reference, ferplus, splits
from fer_jax.data.dataset import read
from fer_jax.data.emotions import class_names
from fer_jax.data.faces import Faces
from fer_jax.loaded_model import LoadedModel
from fer_jax.pretrained import weights
from fer_jax.pretrained.download import DownloadError
from fer_jax.pretrained.registry import find_weights
from fer_jax.pretrained.weights import Pretrained
from fer_jax.training import losses, optim, stages
from fer_jax.training.distillation import Distillation
from fer_jax.weights_file import DamagedCheckpointError

SELECTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


def augmentation(config: ConfigDict) -> augment.Ranges:
    """The ranges in `config.augment`.

    Raises:
      As `augment.Ranges`.
    """
    pairs = {name: tuple(v) if isinstance(v, list) else v for name, v in config.to_dict().items()}
    return augment.Ranges(**pairs)


def load_split(config: ConfigDict, split: str) -> Faces:
    """A split with the labels that the config asks for, without the faces that have none.

    Raises:
      ValueError: its faces have colours that the model does not take, or no votes to label them by.
    """
    faces = read.load(config.data.dir, split, image_size=config.data.image_size)
    logging.info("%s: %d faces of %s", split, len(faces), faces.image_shape)
    if faces.image_shape[-1] not in (1, config.model.channels):
        raise ValueError(
            f"the faces of {config.data.dir} have {faces.image_shape[-1]} channels and "
            f"config.model.channels is {config.model.channels}: set --config.model.channels="
            f"{faces.image_shape[-1]} or use grey data"
        )
    if config.data.labels == ferplus.GIVEN:
        return faces
    if faces.votes is None:
        raise ValueError(
            f"config.data.labels is {config.data.labels!r} and {config.data.dir} has no FER+ votes: prepare "
            "it with fer-jax prepare --ferplus fer2013new.csv"
        )
    labelled = ferplus.relabel(faces, config.data.labels, config.data.num_classes)
    logging.info("%s: %d faces with a label by %s", split, len(labelled), config.data.labels)
    if not len(labelled):
        raise ValueError(f"no face of {split} in {config.data.dir} has a label by {config.data.labels}")
    return labelled


def drop_list(config: ConfigDict) -> exclude_list.ExcludeList | None:
    """The ids in the file `config.data.drop_ids`, None without one.

    Raises:
      As `exclude_list.read`.
    """
    return exclude_list.read(config.data.drop_ids) if config.data.drop_ids else None


def load_training(config: ConfigDict) -> tuple[Faces, dict[str, Any]]:
    """The training split, cleaned as the config says, and the facts about that.

    Returns:
      The faces, and {"images": how many, "left_out": {"listed": n, "blank": n, "twin": n},
      "drop_ids_hash": of the list of ids, None without one}.

    Raises:
      As `load_split`, `drop_list` and `exclude_list.exclude`.
    """
    train, data = load_split(config, "train"), config.data
    left_out, listed = {"listed": 0}, drop_list(config)
    if listed:  # before twins merge, so that a copy whose label is trusted stays
        count, train = len(train), exclude_list.exclude(train, listed)
        left_out["listed"] = count - len(train)
    train, counts = splits.clean_train(train, drop_blank=data.drop_blank, merge_duplicates=data.merge_twins)
    left_out |= counts
    if any(left_out.values()):
        logging.info("training faces after cleaning: %d, left out: %s", len(train), left_out)
    facts = {"images": len(train), "left_out": left_out, "drop_ids_hash": listed and listed.digest}
    return train, facts


def make_stages(
    config: ConfigDict, network: nn.Module, per_epoch: float, pretrained: dict[str, Any] | None = None
) -> list[stages.Stage]:
    """Returns the stages in `config.stages`, or the whole run as one.

    Args:
      config: the whole.
      network: what trains.
      per_epoch: steps of an epoch.
      pretrained: facts of the weights to start from (`pretrained`), None for random ones.

    Raises:
      ValueError: a stage cannot be; the message says which and why.
    """
    plan = planned_stages(config)
    if not plan:
        epochs = config.train.steps / per_epoch if config.train.steps else config.train.epochs
        plan = [stages.StageConfig(epochs, "all", config.optim.learning_rate, batch_norm="running")]
    ends = [max(1, round(epochs * per_epoch)) for epochs in itertools.accumulate(s.epochs for s in plan)]
    layers, factors = layers_of_stages(config, network, plan, pretrained)
    return [
        _stage(config, stage, start, end, per_epoch, trained, frozen, factors)
        for stage, start, end, (trained, frozen) in zip(plan, [0, *ends], ends, layers, strict=False)
    ]


def layers_of_stages(
    config: ConfigDict,
    network: nn.Module,
    plan: Sequence[stages.StageConfig],
    pretrained: dict[str, Any] | None,
) -> tuple[
    list[tuple[frozenset[stages.Path] | None, tuple[stages.Path, ...]]], dict[stages.Path, float] | None
]:
    """The layers that train and those that rest in each stage, and the factors on the rate.

    Args:
      config: the whole.
      network: what trains.
      plan: the stages.
      pretrained: as `make_stages`.

    Returns:
      For each stage the paths of the layers that train (None for all) and of those that rest, and the factors
      on the learning rate by path, None for 1 everywhere.

    Raises:
      ValueError: a stage names layers that the network lacks, or its BatchNorm cannot rest.
    """
    blocks, new, factors, decay = [], frozenset(), None, config.optim.layer_decay
    if config.stages or decay != 1:
        side = config.model.input_size
        blocks = stages.blocks(network, (side, side, config.model.channels))
        new = _new_layers(blocks, pretrained)
        factors = stages.layer_factors(blocks, decay, new) if decay != 1 else None
    found = []
    for stage in plan:
        trained = stages.trained_layers(stage, blocks, new)
        frozen = stages.frozen_layers(stage, blocks, trained)
        if frozen and not hasattr(network, "frozen"):
            raise ValueError(
                f"the BatchNorm of {config.model.name} always follows the batches: set batch_norm='running' "
                "in config.stages"
            )
        found.append((trained, frozen))
    return found, factors


def _new_layers(
    blocks: Sequence[Sequence[stages.Path]], pretrained: dict[str, Any] | None
) -> frozenset[stages.Path]:
    """The layers that pretrained weights know nothing of: the adapter, and what a partial file lacks."""
    missing = {tuple(name.split("/")[1:-1]) for name in pretrained["missing"]} if pretrained else set()
    return frozenset(path for block in blocks for path in block if path == ("adapter",) or path in missing)


def planned_stages(config: ConfigDict) -> list[stages.StageConfig]:
    """The stages in `config.stages`; none where the run is in one.

    Raises:
      ValueError: a stage cannot be, or there is a number of steps as well.
    """
    plan = [_stage_config(number, fields) for number, fields in enumerate(config.stages, 1)]
    if plan and config.train.steps:
        raise ValueError("config.train.steps and config.stages are both set: stages have epochs of their own")
    return plan


def _stage_config(number: int, fields: dict[str, Any]) -> stages.StageConfig:
    try:
        return stages.StageConfig(**fields)
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in dataclasses.fields(stages.StageConfig))
        raise ValueError(f"config.stages, stage {number}: {error} (fields: {known})") from None


def _stage(
    config: ConfigDict,
    stage: stages.StageConfig,
    start: int,
    end: int,
    per_epoch: float,
    trained: frozenset[stages.Path] | None,
    frozen: tuple[stages.Path, ...],
    factors: dict[stages.Path, float] | None,
) -> stages.Stage:
    schedule = _learning_rate(config.optim, stage.learning_rate, end - start, per_epoch)
    tx = optim.make_optimizer(
        config.optim.name,
        schedule,
        momentum=config.optim.momentum,
        weight_decay=config.optim.weight_decay,
        clip_norm=config.optim.clip_norm,
        accumulate=config.optim.accumulate,
        factors=factors,
    )
    return stages.Stage(start, end, trained, frozen, schedule, tx)


def _learning_rate(
    config: ConfigDict, peak: float, total_steps: int, per_epoch: float
) -> Callable[[jax.Array], jax.Array]:
    """The schedule in `config.optim`, by the number of the update."""
    warmup, boundaries = config.warmup_steps, config.boundary_steps
    if warmup is None:
        warmup = config.warmup_epochs * per_epoch
    if boundaries is None:
        boundaries = [epoch * per_epoch for epoch in config.boundary_epochs]
    if config.accumulate > total_steps:
        raise ValueError(
            f"config.optim.accumulate is {config.accumulate}, but the run has {total_steps} steps: no update"
        )
    # The schedule counts updates, of which an accumulated gradient makes fewer than steps.
    return optim.learning_rate(
        config.schedule,
        peak=peak,
        total_steps=max(1, total_steps // config.accumulate),
        warmup_steps=round(warmup / config.accumulate),
        step_boundaries=[round(step / config.accumulate) for step in boundaries],
        step_factor=config.step_factor,
    )


def pretrained(config: ConfigDict) -> Pretrained | None:
    """The weights that `config.init.weights` or `config.init_from` names, None for none.

    The weights of a run keep to what they were trained with: the mean and std of their input, and the
    conventions of their layers. The input's size and interpolation are the config's, so that a run may go on
    at another size.

    Returns:
      As `weights.find`; for weights of a run the facts are "conventions", "preprocess", "missing" (nothing)
      and "run", that run's own.

    Raises:
      As `weights.find` and `LoadedModel`.
      FileNotFoundError: there are no weights at `config.init_from`.
      ValueError: they are of another model, or the config sets another mean or std.
    """
    if config.init_from:
        return _of_run(config)
    if config.init.weights == "none":
        return None
    try:
        return weights.find(config.init.weights, config.model.name)
    except DownloadError as error:
        raise DownloadError(f"{error}, or train from scratch with --config.init.weights=none") from error


def _of_run(config: ConfigDict) -> Pretrained:
    trained = _trained("init_from", config.init_from)
    network, normalized = trained.metadata["model"], trained.metadata["preprocess"]
    if network["name"] != config.model.name:
        raise ValueError(
            f"config.init_from is {config.init_from!r}, weights of {network['name']}, and config.model.name "
            f"is {config.model.name}"
        )
    for name, default in (("mean", fer2013_reference.MEAN), ("std", fer2013_reference.STD)):
        if config.model[name] not in (default, normalized[name]):
            raise ValueError(
                f"config.model.{name} is {config.model[name]}, and the weights of config.init_from "
                f"({config.init_from}) were trained with {normalized[name]} and go on with it: leave "
                f"config.model.{name} at its default, {default}"
            )
    facts = {
        "conventions": {k: v for k, v in network["kwargs"].items() if k in weights.CONVENTIONS},
        "preprocess": {k: normalized[k] for k in ("mean", "std")}
        | {"interpolation": config.model.interpolation},
        "missing": [],
        "run": trained.metadata,
    }
    return Pretrained(trained.variables, facts)


def preprocess(config: ConfigDict, facts: dict[str, Any] | None) -> dict[str, Any]:
    """How the network's input is made: arguments of `preprocessing.make_forward` besides the size.

    Args:
      config: the whole.
      facts: of the weights to start from (`pretrained`), whose input it then is; None for random ones. For a
        model that takes one channel, mean and std are the means over the colours.
    """
    found = facts["preprocess"] if facts else config.model
    mean, std = found["mean"], found["std"]
    if facts and config.model.channels == 1:
        mean, std = weights.grey(found)
    return {
        "mean": mean,
        "std": std,
        "interpolation": found["interpolation"],
        "channels": config.model.channels,
        "fill": config.augment.fill,
    }


def model(
    config: ConfigDict,
    num_classes: int,
    sizes: Sequence[tuple[float, int]],
    conventions: dict[str, Any] | None = None,
) -> nn.Module:
    """The network in `config.model`.

    Args:
      config: config.model.
      num_classes: config.data.num_classes.
      sizes: config.train.sizes.
      conventions: attributes that the weights to start from ask for, where the config does not say
        otherwise.

    Raises:
      ValueError: there is none of the name or with such attributes, or it does not take one of the input
        sizes.
    """
    attributes = {"dtype": config.dtype} | _attributes(config, conventions)
    try:
        network = models.create(config.name, num_classes, **attributes)
        side = config.input_size
        variables = models.variable_shapes(network, (side, side, config.channels))
    except ValueError as error:
        raise ValueError(f"config.model: {error}") from error
    for _, size in sizes:
        try:
            faces = jax.ShapeDtypeStruct((1, size, size, config.channels), np.float32)
            jax.eval_shape(network.apply, variables, faces)
        except ValueError as error:
            raise ValueError(f"config.train.sizes has {size}: {error}") from error
        except flax.errors.ScopeParamShapeError:
            raise ValueError(
                f"config.train.sizes has {size}, but {config.name} has dense layers for "
                f"config.model.input_size={config.input_size} and takes no other size"
            ) from None
    return network


def _attributes(config: ConfigDict, conventions: dict[str, Any] | None) -> dict[str, Any]:
    return {**(conventions or {}), **config.kwargs.to_dict()}


def loss(config: ConfigDict, train: Faces) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """The loss in `config.loss`, its class weights and logit adjustment from the training split."""
    weights = offsets = None
    names = class_names(train.targets.shape[1])
    if config.class_weights == "balanced":
        weights = losses.balanced_class_weights(train.targets.sum(axis=0))
        logging.info("class weights: %s", dict(zip(names, weights.tolist(), strict=True)))
    if config.logit_adjustment:
        offsets = np.float32(config.logit_adjustment) * losses.log_priors(train.targets)
        logging.info("added to the logits: %s", dict(zip(names, offsets.tolist(), strict=True)))
    return functools.partial(
        losses.cross_entropy,
        label_smoothing=config.label_smoothing,
        class_weights=weights,
        focal_gamma=config.focal_gamma,
        logit_offsets=offsets,
        normalization=config.normalization,
    )


def teachers(config: ConfigDict) -> list[LoadedModel]:
    """The networks in `config.distill.teachers`.

    Raises:
      As `LoadedModel`.
      FileNotFoundError: there is none of the name.
      ValueError: one tells other classes apart than the student, or cannot take the data's faces; or one
        is there twice.
    """
    if not config.distill.teachers:
        return []
    found = [_trained("distill.teachers", source) for source in config.distill.teachers]
    if len({teacher.digest for teacher in found}) < len(found):
        raise ValueError(f"config.distill.teachers is {config.distill.teachers}: one of them is there twice")
    names = list(class_names(config.data.num_classes))
    channels = read.read_manifest(config.data.dir)["channels"]
    for teacher in found:
        if teacher.metadata["emotions"] != names:
            raise ValueError(
                f"config.distill.teachers: {teacher.source} tells {teacher.metadata['emotions']} apart and "
                f"the student {names}: config.data.num_classes says how many the student does"
            )
        if channels not in (1, teacher.input_shape[-1]):
            raise ValueError(
                f"config.distill.teachers: {teacher.source} takes {teacher.input_shape[-1]} channel (grey), "
                f"and the faces of {config.data.dir} have {channels} (colour)"
            )
    return found


def _trained(name: str, source: str) -> LoadedModel:
    """The network that a value of a field names."""
    path = find_source(name, source)
    try:
        return LoadedModel(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.{name}: {error}") from error
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"config.{name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"config.{name}: {error}") from error


def find_source(name: str, source: str) -> str:
    """The path of the weights that a value of a field names.

    Raises:
      FileNotFoundError: there are none; the message names the field.
    """
    try:
        return find_weights(str(source))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.{name}: {error}") from error


def distillation(config: ConfigDict, networks: Sequence[LoadedModel]) -> Distillation | None:
    """What `networks` teach in each step, as `config.distill` says; None where they do not."""
    if not networks or config.distill.views == "plain":
        return None
    kept = config.distill.weight, config.distill.temperature
    return Distillation(networks, *kept, fill=config.augment.fill, dtype=config.model.dtype)


def watch(config: ConfigDict) -> optim.PlateauTracker:
    """What follows the selection metric."""
    plateau = config.optim.schedule == "plateau"
    return optim.PlateauTracker(
        patience=config.selection.patience,
        plateau_patience=config.optim.plateau_patience if plateau else 0,
        plateau_factor=config.optim.plateau_factor,
        min_scale=config.optim.plateau_min_scale,
    )


def facts(
    config: ConfigDict,
    manifest: dict[str, Any],
    training: dict[str, Any],
    preprocess: dict[str, Any],
    pretrained: dict[str, Any] | None,
) -> dict[str, Any]:
    """What every checkpoint says of itself.

    At an evaluation "evaluation" becomes its result, and "selection" too where it is the best so far.
    "pretrained" are ImageNet weights that it comes from, by way of other runs or not.
    """
    start = pretrained or {}
    steered = config.selection.patience or config.optim.schedule == "plateau"
    return {
        "version": fer_jax.__version__,
        "model": {
            "name": config.model.name,
            "kwargs": _attributes(config.model, start.get("conventions")),
        },
        "pretrained": start["run"].get("pretrained") if "run" in start else pretrained,
        "preprocess": {"image_size": config.model.input_size, **preprocess},
        "emotions": list(class_names(config.data.num_classes)),
        "config": json.loads(config.to_json_best_effort()),
        "data_hash": manifest["content_hash"],
        "data": read.describe(manifest),
        "training": training,
        "loaded_size": config.data.image_size,
        "faces": {
            "side": config.data.image_size or max((manifest["image_shape"] or [0])[:2]) or None,
            "channels": manifest["channels"],
        },
        "labels": config.data.labels,
        "annotations": [] if config.data.labels == ferplus.GIVEN else [ferplus.ANNOTATION],
        "seed": config.seed,
        "ema": bool(config.train.ema_decay),
        "ancestors": [],
        "steered_by": config.selection.split if steered else None,
        "evaluation": None,
        "selection": None,
    }
