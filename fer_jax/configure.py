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
from fer_jax import losses, models, optim, stages
from fer_jax.data import augment, builder, splits
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.faces import Faces
from fer_jax.pretrained import weights
from fer_jax.pretrained.download import DownloadError
from fer_jax.pretrained.weights import Pretrained

SELECTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


def check(config: ConfigDict) -> None:
    """Refuses, before any work, values that would fail or mislead later."""
    positive = ("log_every", "train.batch_size", "optim.accumulate", "model.input_size", "model.std")
    positive += ("checkpoint.keep", "optim.layer_decay")
    durations = ("train.epochs", "train.steps", "train.eval_epochs", "train.eval_steps")
    for name in positive + durations:
        value = _field(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"config.{name} is {value}; expected more than 0")
    for name in ("train.ema_decay", "loss.label_smoothing"):
        if not 0 <= _field(config, name) < 1:
            raise ValueError(f"config.{name} is {_field(config, name)}; expected 0 to below 1")
    not_negative = ("learning_rate", "weight_decay", "clip_norm", "plateau_patience")
    for name in ("selection.patience", *(f"optim.{name}" for name in not_negative)):
        if _field(config, name) < 0:
            raise ValueError(f"config.{name} is {_field(config, name)}; expected 0 or more")
    if not 0 < config.optim.plateau_factor <= 1:
        raise ValueError(
            f"config.optim.plateau_factor is {config.optim.plateau_factor}; expected more than 0 and at "
            "most 1"
        )
    pairs = [tuple(pair) if isinstance(pair, tuple | list) else (pair,) for pair in config.train.sizes]
    if any(len(pair) != 2 for pair in pairs) or pairs != sorted(pairs, key=lambda pair: pair[0]):
        raise ValueError(
            f"config.train.sizes is {config.train.sizes}; expected ((share of the steps, size), ...) with "
            "growing shares"
        )
    choices = {
        "selection.metric": SELECTION_METRICS,
        "model.dtype": ("float32", "bfloat16"),
        "model.interpolation": augment.INTERPOLATIONS,
        "checkpoint.dtype": ("float32", "float16"),
        "loss.class_weights": ("none", "balanced"),
    }
    for name, known in choices.items():
        if _field(config, name) not in known:
            raise ValueError(f"config.{name} is {_field(config, name)!r}; there are: {', '.join(known)}")
    if config.init_from and config.init.weights != "none":
        raise ValueError("config.init_from and config.init.weights are both set: choose one to start from")
    if config.selection.patience and len(config.stages) > 1:
        raise ValueError(
            f"config.selection.patience is {config.selection.patience} with {len(config.stages)} stages: an "
            "early stop would leave out the stages after it; set it to 0, or train in one stage"
        )
    if config.selection.split == "test":
        raise ValueError(
            "config.selection.split is 'test', which is for the final score only; select on validation"
        )


def _field(config: ConfigDict, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)


def augmentation(config: ConfigDict) -> augment.Ranges:
    """The ranges in `config.augment`."""
    pairs = {name: tuple(v) if isinstance(v, list) else v for name, v in config.to_dict().items()}
    return augment.Ranges(**pairs)


def load_split(config: ConfigDict, split: str) -> Faces:
    """A split, as it is.

    Raises:
      ValueError: its faces have colours that the model does not take.
    """
    faces = builder.load(config.data.dir, split, image_size=config.data.image_size)
    logging.info("%s: %d faces of %s", split, len(faces), faces.image_shape)
    if faces.image_shape[-1] not in (1, config.model.channels):
        raise ValueError(
            f"the faces of {config.data.dir} have {faces.image_shape[-1]} channels and "
            f"config.model.channels is {config.model.channels}: set --config.model.channels="
            f"{faces.image_shape[-1]} or use grey data"
        )
    return faces


def load_training(config: ConfigDict) -> Faces:
    """The training split, cleaned as the config says."""
    train, data = load_split(config, "train"), config.data
    if not (data.drop_blank or data.merge_twins):
        return train
    train, counts = splits.clean_train(train, drop_blank=data.drop_blank, merge_twins=data.merge_twins)
    logging.info("training faces after cleaning: %d, left out: %s", len(train), counts)
    return train


def phases(
    config: ConfigDict, network: nn.Module, per_epoch: float, pretrained: dict[str, Any] | None = None
) -> list[stages.Phase]:
    """The stages in `config.stages`, or the whole run as one.

    Args:
      config: the whole.
      network: what trains.
      per_epoch: steps of an epoch.
      pretrained: facts of the weights to start from, None for random ones.

    Raises:
      ValueError: a stage cannot be; the message says which and why.
    """
    plan = [_stage(number, fields) for number, fields in enumerate(config.stages, 1)]
    if plan and config.train.steps:
        raise ValueError("config.train.steps and config.stages are both set: stages have epochs of their own")
    if not plan:
        epochs = config.train.steps / per_epoch if config.train.steps else config.train.epochs
        plan = [stages.Stage(epochs, "all", config.optim.learning_rate, batch_norm="running")]
    ends = [max(1, round(epochs * per_epoch)) for epochs in itertools.accumulate(s.epochs for s in plan)]
    blocks, new, factors, decay = [], frozenset(), None, config.optim.layer_decay
    if config.stages or decay != 1:
        side = config.model.input_size
        blocks = stages.blocks(network, (side, side, config.model.channels))
        new = _new_layers(blocks, pretrained)
        factors = stages.layer_factors(blocks, decay, new) if decay != 1 else None
    return [
        _phase(config, network, stage, start, end, per_epoch, blocks, new, factors)
        for stage, start, end in zip(plan, [0, *ends], ends, strict=False)
    ]


def _new_layers(
    blocks: Sequence[Sequence[stages.Path]], pretrained: dict[str, Any] | None
) -> frozenset[stages.Path]:
    """The layers that pretrained weights know nothing of: the adapter, and what a partial file lacks."""
    missing = {tuple(name.split("/")[1:-1]) for name in pretrained["missing"]} if pretrained else set()
    return frozenset(path for block in blocks for path in block if path == ("adapter",) or path in missing)


def _stage(number: int, fields: dict[str, Any]) -> stages.Stage:
    try:
        return stages.Stage(**fields)
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in dataclasses.fields(stages.Stage))
        raise ValueError(f"config.stages, stage {number}: {error} (fields: {known})") from None


def _phase(
    config: ConfigDict,
    network: nn.Module,
    stage: stages.Stage,
    start: int,
    end: int,
    per_epoch: float,
    blocks: Sequence[Sequence[stages.Path]],
    new: frozenset[stages.Path],
    factors: dict[stages.Path, float] | None,
) -> stages.Phase:
    trained = stages.trained_layers(stage, blocks, new)
    frozen = stages.frozen_layers(stage, blocks, trained)
    if frozen and not hasattr(network, "frozen"):
        raise ValueError(
            f"the BatchNorm of {config.model.name} always follows the batches: set batch_norm='running' in "
            "config.stages"
        )
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
    return stages.Phase(start, end, trained, frozen, schedule, tx)


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
    """The weights that `config.init.weights` names, None for none.

    Raises:
      As `weights.find`.
    """
    if config.init.weights == "none":
        return None
    try:
        return weights.find(config.init.weights, config.model.name)
    except DownloadError as error:
        raise DownloadError(f"{error}, or train from scratch with --config.init.weights=none") from error


def preprocess(config: ConfigDict, facts: dict[str, Any] | None) -> dict[str, Any]:
    """How the network's input is made: arguments of `steps.make_forward` besides the size.

    Args:
      config: the whole.
      facts: of the pretrained weights, whose input it then is. For a model that takes one channel, mean and
        std are the means over the colours.
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
    config: ConfigDict, sizes: Sequence[tuple[float, int]], conventions: dict[str, Any] | None = None
) -> nn.Module:
    """The network in `config.model`.

    Args:
      config: config.model.
      sizes: config.train.sizes.
      conventions: attributes that pretrained weights ask for, where the config does not say otherwise.

    Raises:
      ValueError: there is none of the name, or it does not take one of the input sizes.
    """

    def faces(size):
        return jax.ShapeDtypeStruct((1, size, size, config.channels), np.float32)

    network = models.create(config.name, len(EMOTIONS), **_attributes(config, conventions))
    variables = jax.eval_shape(network.init, jax.random.key(0), faces(config.input_size))
    for _, size in sizes:
        try:
            jax.eval_shape(network.apply, variables, faces(size))
        except flax.errors.ScopeParamShapeError:
            raise ValueError(
                f"config.train.sizes has {size}, but {config.name} has dense layers for "
                f"config.model.input_size={config.input_size} and takes no other size"
            ) from None
    return network


def _attributes(config: ConfigDict, conventions: dict[str, Any] | None) -> dict[str, Any]:
    return {"dtype": config.dtype, **(conventions or {}), **config.kwargs.to_dict()}


def loss(config: ConfigDict, train: Faces) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """The loss in `config.loss`, its class weights from the training split."""
    weights = None
    if config.class_weights == "balanced":
        counts = np.bincount(train.labels, minlength=len(EMOTIONS))
        weights = losses.balanced_class_weights(counts)
        logging.info("class weights: %s", dict(zip(EMOTIONS, weights.tolist(), strict=True)))
    return functools.partial(
        losses.cross_entropy,
        label_smoothing=config.label_smoothing,
        class_weights=weights,
        focal_gamma=config.focal_gamma,
        normalization=config.normalization,
    )


def watch(config: ConfigDict) -> optim.Watch:
    """What follows the selection metric."""
    plateau = config.optim.schedule == "plateau"
    return optim.Watch(
        patience=config.selection.patience,
        plateau_patience=config.optim.plateau_patience if plateau else 0,
        plateau_factor=config.optim.plateau_factor,
        min_scale=config.optim.plateau_min_scale,
    )


def facts(
    config: ConfigDict,
    manifest: dict[str, Any],
    preprocess: dict[str, Any],
    pretrained: dict[str, Any] | None,
) -> dict[str, Any]:
    """What every checkpoint says of itself.

    At an evaluation "evaluation" becomes its result, and "selection" too where it is the best so far.
    """
    return {
        "version": fer_jax.__version__,
        "model": {
            "name": config.model.name,
            "kwargs": _attributes(config.model, pretrained and pretrained["conventions"]),
        },
        "pretrained": pretrained,
        "preprocess": {"image_size": config.model.input_size, **preprocess},
        "emotions": list(EMOTIONS),
        "config": json.loads(config.to_json_best_effort()),
        "data_hash": manifest["content_hash"],
        "data": {key: manifest[key] for key in ("name", "source_kind", "splits")},
        "loaded_size": config.data.image_size,
        "seed": config.seed,
        "ema": bool(config.train.ema_decay),
        "evaluation": None,
        "selection": None,
    }
