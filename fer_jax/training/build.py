"""Builds the parts of a run from its config; lower modules take plain arguments."""

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

import fer_jax
from fer_jax import models
from fer_jax.data import augment, ferplus
from fer_jax.data.dataset import read
from fer_jax.data.emotions import class_names
from fer_jax.data.faces import Faces
from fer_jax.pretrained import imagenet
from fer_jax.training import losses, optim, stages

SELECTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


def augmentation(config: ConfigDict) -> augment.Ranges:
    """Returns the ranges in `config.augment`.

    Raises:
      As `augment.Ranges`.
    """
    pairs: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in config.to_dict().items()}
    return augment.Ranges(**pairs)


# -------------------- the network --------------------


def model(
    config: ConfigDict,
    num_classes: int,
    sizes: Sequence[tuple[float, int]],
    conventions: dict[str, Any] | None = None,
) -> nn.Module:
    """Returns the network in `config.model`, which must support all of `config.train.sizes`.

    `conventions` are attributes required by the initial weights, unless the config sets them.

    Raises:
      ValueError: the network or an attribute is unknown, or it does not support one of the input sizes.
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
                f"config.model.input_size={config.input_size} only"
            ) from None
    return network


def _attributes(config: ConfigDict, conventions: dict[str, Any] | None) -> dict[str, Any]:
    return {**(conventions or {}), **config.kwargs.to_dict()}


def preprocess(config: ConfigDict, start: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the arguments of `preprocessing.make_forward` except the size.

    A run keeps the preprocessing of its initial weights (metadata `start`, None for random weights). For a
    one-channel model, mean and std are averaged over colors.
    """
    found = start["preprocess"] if start else config.model
    mean, std = found["mean"], found["std"]
    if start and config.model.channels == 1:
        mean, std = imagenet.gray(found)
    return {
        "mean": mean,
        "std": std,
        "interpolation": found["interpolation"],
        "channels": config.model.channels,
        "fill": config.augment.fill,
    }


# -------------------- stages and their optimizers --------------------


def stage_configs(config: ConfigDict) -> list[stages.StageConfig]:
    """Returns the stages in `config.stages`; [] for a single stage.

    Raises:
      ValueError: a field of a stage is invalid, or config.train.steps is also set.
    """
    found = []
    for number, fields in enumerate(config.stages, 1):
        try:
            found.append(stages.StageConfig(**fields))
        except (TypeError, ValueError) as error:
            known = ", ".join(field.name for field in dataclasses.fields(stages.StageConfig))
            raise ValueError(f"config.stages, stage {number}: {error} (fields: {known})") from None
    if found and config.train.steps:
        raise ValueError("config.train.steps and config.stages are both set: stages have their own epochs")
    return found


def make_stages(
    config: ConfigDict,
    configs: Sequence[stages.StageConfig],
    network: nn.Module,
    per_epoch: float,
    start: dict[str, Any] | None = None,
) -> list[stages.Stage]:
    """Returns the stages of a run with their optimizers; without `stage_configs` it has one stage.

    `per_epoch` are steps; `start` is the metadata of the initial weights, None for random weights.

    Raises:
      ValueError: as `layers_of_stages`, or the schedule does not fit the number of steps.
    """
    if not configs:
        epochs = config.train.steps / per_epoch if config.train.steps else config.train.epochs
        configs = [stages.StageConfig(epochs, "all", config.optim.learning_rate, batch_norm="running")]
    totals = itertools.accumulate(stage.epochs for stage in configs)
    bounds = [0, *(max(1, round(epochs * per_epoch)) for epochs in totals)]
    layers, factors = layers_of_stages(config, network, configs, start)
    found = []
    for stage, (begin, end), (trained, frozen) in zip(
        configs, itertools.pairwise(bounds), layers, strict=True
    ):
        schedule = _learning_rate(config.optim, stage.learning_rate, end - begin, per_epoch)
        tx = optim.make_optimizer(
            config.optim.name,
            schedule,
            momentum=config.optim.momentum,
            weight_decay=config.optim.weight_decay,
            clip_norm=config.optim.clip_norm,
            accumulate=config.optim.accumulate,
            factors=factors,
        )
        found.append(stages.Stage(begin, end, trained, frozen, schedule, tx))
    return found


def layers_of_stages(
    config: ConfigDict,
    network: nn.Module,
    configs: Sequence[stages.StageConfig],
    start: dict[str, Any] | None,
) -> tuple[
    list[tuple[frozenset[stages.Path] | None, tuple[stages.Path, ...]]], dict[stages.Path, float] | None
]:
    """Returns the trained layers of each stage, and the factors on their learning rates; see `make_stages`.

    Returns:
      For each stage the paths of trained layers (None for all) and of frozen layers, and factors on the
      learning rate by path, None for 1.

    Raises:
      ValueError: a stage names layers that the network lacks, or its BatchNorm cannot be frozen.
    """
    blocks, new, factors, decay = [], frozenset(), None, config.optim.layer_decay
    if config.stages or decay != 1:
        side = config.model.input_size
        blocks = stages.blocks(network, (side, side, config.model.channels))
        # Layers that the initial weights lack: the adapter, and those that a partial file lacks.
        missing = {tuple(name.split("/")[1:-1]) for name in start["missing"]} if start else set()
        missing.add(("adapter",))
        new = frozenset(path for block in blocks for path in block if path in missing)
        factors = stages.layer_factors(blocks, decay, new) if decay != 1 else None
    found = []
    for stage in configs:
        trained = stages.trained_layers(stage, blocks, new)
        frozen = stages.frozen_layers(stage, blocks, trained)
        if frozen and not hasattr(network, "frozen"):
            raise ValueError(
                f"the BatchNorm of {config.model.name} cannot be frozen: set batch_norm='running' in "
                "config.stages"
            )
        found.append((trained, frozen))
    return found, factors


def _learning_rate(config: ConfigDict, peak: float, total_steps: int, per_epoch: float) -> optax.Schedule:
    """Returns the schedule in `config.optim`, by update number."""
    warmup, boundaries = config.warmup_steps, config.boundary_steps
    if warmup is None:
        warmup = config.warmup_epochs * per_epoch
    if boundaries is None:
        boundaries = [epoch * per_epoch for epoch in config.boundary_epochs]
    if config.accumulate > total_steps:
        raise ValueError(
            f"config.optim.accumulate is {config.accumulate}, but the run has only {total_steps} steps, so "
            "no update"
        )
    # The schedule counts updates, which are fewer than steps with accumulated gradients.
    return optim.learning_rate(
        config.schedule,
        peak=peak,
        total_steps=max(1, total_steps // config.accumulate),
        warmup_steps=round(warmup / config.accumulate),
        step_boundaries=[round(step / config.accumulate) for step in boundaries],
        step_factor=config.step_factor,
    )


# -------------------- loss, selection, metadata --------------------


def loss(config: ConfigDict, train: Faces) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the loss in `config.loss`, with class weights and logit adjustment from the training split."""
    class_weights = offsets = None
    names = class_names(train.targets.shape[1])
    if config.class_weights == "balanced":
        class_weights = losses.balanced_class_weights(train.targets.sum(axis=0))
        logging.info("class weights: %s", dict(zip(names, class_weights.tolist(), strict=True)))
    if config.logit_adjustment:
        offsets = np.float32(config.logit_adjustment) * losses.log_priors(train.targets)
        logging.info("logit adjustment: %s", dict(zip(names, offsets.tolist(), strict=True)))
    return functools.partial(
        losses.cross_entropy,
        label_smoothing=config.label_smoothing,
        class_weights=class_weights,
        focal_gamma=config.focal_gamma,
        logit_offsets=offsets,
        normalization=config.normalization,
    )


def plateau_tracker(config: ConfigDict) -> optim.PlateauTracker:
    """Returns the tracker of the selection metric."""
    plateau = config.optim.schedule == "plateau"
    return optim.PlateauTracker(
        patience=config.selection.patience,
        plateau_patience=config.optim.plateau_patience if plateau else 0,
        plateau_factor=config.optim.plateau_factor,
        min_scale=config.optim.plateau_min_scale,
    )


def metadata(
    config: ConfigDict,
    manifest: dict[str, Any],
    training: dict[str, Any],
    preprocess: dict[str, Any],
    start: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns the metadata of the checkpoints of a run, before any evaluation.

    Evaluations set "evaluation" to their result, and also "selection" if it is the best so far. "pretrained"
    describes the original ImageNet weights, also through intermediate runs. `training` is from
    `training_data.clean`; `start` is the metadata of the initial weights, None for random weights.
    """
    steered = config.selection.patience or config.optim.schedule == "plateau"
    return {
        "version": fer_jax.__version__,
        "model": {
            "name": config.model.name,
            "kwargs": _attributes(config.model, start and start.get("conventions")),
        },
        "pretrained": start["run"].get("pretrained") if start and "run" in start else start,
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
