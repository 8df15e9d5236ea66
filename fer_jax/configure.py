"""From a configuration to what a run is made of: the modules below take plain arguments."""

import dataclasses
import functools
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

import fer_jax
from fer_jax import losses, models, optim, parallel, stages
from fer_jax.checkpoints import DamagedCheckpointError
from fer_jax.data import augment, builder, ferplus, id_list, official, splits
from fer_jax.data.emotions import class_names
from fer_jax.data.faces import Faces
from fer_jax.data.records import SPLITS
from fer_jax.distillation import Distillation
from fer_jax.evaluation.trained import Trained
from fer_jax.pretrained import sources, weights
from fer_jax.pretrained.bundled import find_weights
from fer_jax.pretrained.download import DownloadError
from fer_jax.pretrained.naming import ECOSYSTEMS
from fer_jax.pretrained.weights import Pretrained
from fer_jax.state import check_fit
from fer_jax.workdir import flatten

SELECTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
# What the fields may be. A list is that of the module that does what the field says.
_CHOICES = {
    "parallel": parallel.MODES,
    "data.labels": (ferplus.GIVEN, *ferplus.RULES),
    "model.name": models.MODELS,
    "model.interpolation": augment.INTERPOLATIONS,
    "model.dtype": ("float32", "bfloat16"),
    "loss.class_weights": ("none", "balanced"),
    "loss.normalization": losses.NORMALIZATIONS,
    "optim.name": optim.OPTIMIZERS,
    "optim.schedule": optim.SCHEDULES,
    "selection.split": SPLITS,
    "selection.metric": SELECTION_METRICS,
    "checkpoint.dtype": ("float32", "float16"),
}
# Of numbers, or of each in a tuple of them; those of a model's attributes where they are set.
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "more than 0": (
        lambda value: value > 0,
        "log_every data.image_size model.input_size model.kwargs.width model.kwargs.depth model.std "
        "distill.temperature optim.layer_decay optim.accumulate train.batch_size train.epochs train.steps "
        "train.eval_epochs train.eval_steps checkpoint.keep",
    ),
    "0 or more": (
        lambda value: value >= 0,
        "seed data.num_workers loss.focal_gamma loss.logit_adjustment optim.learning_rate "
        "optim.weight_decay optim.clip_norm optim.sharpness_radius optim.warmup_epochs optim.warmup_steps "
        "optim.step_factor optim.plateau_patience selection.patience checkpoint.every_steps",
    ),
    "0 to 1": (
        lambda value: 0 <= value <= 1,
        "data.balanced_sampling model.mean optim.plateau_min_scale train.mix_until",
    ),
    "0 to below 1": (
        lambda value: 0 <= value < 1,
        "model.kwargs.dropout model.kwargs.block_dropout model.kwargs.drop_path loss.label_smoothing "
        "optim.momentum train.ema_decay",
    ),
    "more than 0 and at most 1": (lambda value: 0 < value <= 1, "distill.weight optim.plateau_factor"),
    "whole numbers above 0": (
        lambda value: isinstance(value, int) and value > 0,
        "model.kwargs.widths model.kwargs.depths model.kwargs.hidden",
    ),
    "whole numbers, 0 or more": (
        lambda value: isinstance(value, int) and value >= 0,
        "model.kwargs.blocks model.kwargs.squeeze",
    ),
    "1 or 3": (lambda value: value in (1, 3), "model.channels"),
    "7 or 8": (lambda value: value in (7, 8), "data.num_classes"),
}


def field(config: ConfigDict, name: str) -> Any:
    """A field by its dotted name.

    Raises:
      AttributeError: there is none.
    """
    return functools.reduce(getattr, name.split("."), config)


def check(config: ConfigDict) -> None:
    """Refuses, before any work, values that would fail or mislead later.

    What only the network, files or data can tell is refused by `rehearse`, or where it is made.

    Raises:
      ValueError: the message names the field, its value and what was expected.
    """
    _check_values(config)
    _check_orders(config)
    _check_pairs(config)


def _check_values(config: ConfigDict) -> None:
    """Fields by themselves."""
    fields = flatten(config.to_dict())
    for name, known in _CHOICES.items():
        if fields[name] not in known:
            raise ValueError(f"config.{name} is {fields[name]!r}; there are: {', '.join(known)}")
    for expected, (holds, names) in _RANGES.items():
        for name in names.split():
            value = fields.get(name)
            numbers = value if isinstance(value, tuple | list) else [value] if value is not None else []
            if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
                raise ValueError(f"config.{name} is {value!r}; expected finite numbers")
            if not all(map(holds, numbers)):
                raise ValueError(f"config.{name} is {value}; expected {expected}")
    if config.selection.split == "test":
        raise ValueError(
            "config.selection.split is 'test', which is for the final score only; select on validation"
        )


def _check_orders(config: ConfigDict) -> None:
    """Fields whose values go in order."""
    for name in ("optim.boundary_epochs", "optim.boundary_steps"):
        if not _grow(field(config, name) or ()):
            raise ValueError(f"config.{name} is {field(config, name)}; expected growing numbers above 0")
    pairs = [pair if isinstance(pair, tuple | list) else (pair,) for pair in config.train.sizes]
    if (
        any(len(pair) != 2 for pair in pairs)
        or not _grow([share for share, _ in pairs])
        or any(share > 1 or size < 1 for share, size in pairs)
    ):
        raise ValueError(
            f"config.train.sizes is {config.train.sizes}; expected ((share of the steps, size), ...) with "
            "growing shares, above 0 and at most 1, and sizes above 0"
        )


def _grow(values: Sequence[float]) -> bool:
    """Whether each is above the one before, and the first above 0."""
    return all(low < high for low, high in itertools.pairwise((0, *values)))


def _check_pairs(config: ConfigDict) -> None:
    """Fields that go together."""
    if config.data.num_classes == 8 and config.data.labels == ferplus.GIVEN:
        raise ValueError(
            "config.data.num_classes=8 needs labels that know contempt: set config.data.labels to one of "
            f"{', '.join(ferplus.RULES)}"
        )
    evened = {
        "loss.class_weights": config.loss.class_weights != "none",
        "loss.logit_adjustment": config.loss.logit_adjustment > 0,
        "data.balanced_sampling": config.data.balanced_sampling > 0,
    }
    if sum(evened.values()) > 1:
        names = " and ".join(f"config.{name}" for name, on in evened.items() if on)
        raise ValueError(
            f"{names} are set: each corrects for the classes' shares, together they would do so more than "
            "once; choose one"
        )
    if config.distill.teachers and config.loss.logit_adjustment:
        raise ValueError(
            "config.loss.logit_adjustment and config.distill.teachers are set: the labels would ask for "
            "other logits than the teachers; choose one"
        )
    if config.init_from and config.init.weights != "none":
        raise ValueError(
            f"config.init_from is {config.init_from!r} and config.init.weights is {config.init.weights!r}: "
            "choose one to start from"
        )
    if augmentation(config.augment).mixes and config.train.batch_size % 2:
        raise ValueError(
            f"config.train.batch_size is {config.train.batch_size}; expected an even number, for mixup and "
            "cutmix (config.augment) pair the faces"
        )
    plan = _plan(config)
    if config.selection.patience and len(plan) > 1:
        raise ValueError(
            f"config.selection.patience is {config.selection.patience} with {len(plan)} stages: an "
            "early stop would leave out the stages after it; set it to 0, or train in one stage"
        )
    _check_warmup(config, plan)


def _check_warmup(config: ConfigDict, plan: Sequence[stages.Stage]) -> None:
    """Where both are in one unit; otherwise `optim.learning_rate` finds out."""
    given, unit = config.optim.warmup_steps, "steps"
    whole = None if plan else config.train.steps
    if given is None:
        given, unit = config.optim.warmup_epochs, "epochs"
        whole = None if config.train.steps else config.train.epochs
        whole = min((stage.epochs for stage in plan), default=whole)
    if given and whole and given >= whole:
        what = "the shortest stage, each of which has a warm-up" if plan else "the run"
        raise ValueError(
            f"config.optim.warmup_{unit} is {given}; expected fewer than the {whole} {unit} of {what}"
        )


def rehearse(configs: Iterable[ConfigDict]) -> None:
    """Refuses, before the first of several trainings, also what the network and files can tell.

    What configurations have in common is built once. No weights are made and none are fetched.

    Raises:
      As `check`, `drop_list`, `pretrained`, `model` and `phases`, but for what depends on the data.
      FileNotFoundError: there is no teacher of that name.
    """
    done = set()
    for config in configs:
        check(config)
        fields = ("init_from", "init", "data.drop_ids", "data.num_classes", "distill.teachers", "model")
        fields += ("optim.layer_decay", "train.sizes", "stages")
        parts = repr([field(config, name) for name in fields])
        if parts not in done:
            _rehearse(config)
            done.add(parts)


def _rehearse(config: ConfigDict) -> None:
    drop_list(config)
    for teacher in config.distill.teachers:
        _find_weights("distill.teachers", teacher)
    start = None
    if config.init.weights in ECOSYSTEMS:
        sources.find(config.model.name, config.init.weights)
    else:
        start = pretrained(config)
    conventions = start and start.facts["conventions"]
    network = model(config.model, config.data.num_classes, config.train.sizes, conventions)
    if config.init_from:
        side = config.model.input_size
        try:
            check_fit(start.variables, network, (side, side, config.model.channels))
        except ValueError as error:
            raise ValueError(f"config.init_from is {config.init_from!r}: {error}") from error
    _layers(config, network, _plan(config), start and start.facts)


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
    faces = builder.load(config.data.dir, split, image_size=config.data.image_size)
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
            "it with scripts/prepare_data.py --ferplus fer2013new.csv"
        )
    labelled = ferplus.relabel(faces, config.data.labels, config.data.num_classes)
    logging.info("%s: %d faces with a label by %s", split, len(labelled), config.data.labels)
    if not len(labelled):
        raise ValueError(f"no face of {split} in {config.data.dir} has a label by {config.data.labels}")
    return labelled


def drop_list(config: ConfigDict) -> id_list.IdList | None:
    """The ids in the file `config.data.drop_ids`, None without one.

    Raises:
      As `id_list.read_ids`.
    """
    return id_list.read_ids(config.data.drop_ids) if config.data.drop_ids else None


def load_training(config: ConfigDict) -> tuple[Faces, dict[str, Any]]:
    """The training split, cleaned as the config says, and the facts about that.

    Returns:
      The faces, and {"images": how many, "left_out": {"listed": n, "blank": n, "twin": n},
      "drop_ids_hash": of the list of ids, None without one}.

    Raises:
      As `load_split`, `drop_list` and `id_list.leave_out`.
    """
    train, data = load_split(config, "train"), config.data
    left_out, listed = {"listed": 0}, drop_list(config)
    if listed:  # before twins merge, so that a copy whose label is trusted stays
        count, train = len(train), id_list.leave_out(train, listed)
        left_out["listed"] = count - len(train)
    train, counts = splits.clean_train(train, drop_blank=data.drop_blank, merge_twins=data.merge_twins)
    left_out |= counts
    if any(left_out.values()):
        logging.info("training faces after cleaning: %d, left out: %s", len(train), left_out)
    facts = {"images": len(train), "left_out": left_out, "drop_ids_hash": listed and listed.digest}
    return train, facts


def phases(
    config: ConfigDict, network: nn.Module, per_epoch: float, pretrained: dict[str, Any] | None = None
) -> list[stages.Phase]:
    """The stages in `config.stages`, or the whole run as one.

    Args:
      config: the whole.
      network: what trains.
      per_epoch: steps of an epoch.
      pretrained: facts of the weights to start from (`pretrained`), None for random ones.

    Raises:
      ValueError: a stage cannot be; the message says which and why.
    """
    plan = _plan(config)
    if not plan:
        epochs = config.train.steps / per_epoch if config.train.steps else config.train.epochs
        plan = [stages.Stage(epochs, "all", config.optim.learning_rate, batch_norm="running")]
    ends = [max(1, round(epochs * per_epoch)) for epochs in itertools.accumulate(s.epochs for s in plan)]
    layers, factors = _layers(config, network, plan, pretrained)
    return [
        _phase(config, stage, start, end, per_epoch, trained, frozen, factors)
        for stage, start, end, (trained, frozen) in zip(plan, [0, *ends], ends, layers, strict=False)
    ]


def _layers(
    config: ConfigDict, network: nn.Module, plan: Sequence[stages.Stage], pretrained: dict[str, Any] | None
) -> tuple[
    list[tuple[frozenset[stages.Path] | None, tuple[stages.Path, ...]]], dict[stages.Path, float] | None
]:
    """The layers that train and those that rest in each stage, and the factors on the rate."""
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


def _plan(config: ConfigDict) -> list[stages.Stage]:
    """The stages in `config.stages`; none where the run is in one."""
    plan = [_stage(number, fields) for number, fields in enumerate(config.stages, 1)]
    if plan and config.train.steps:
        raise ValueError("config.train.steps and config.stages are both set: stages have epochs of their own")
    return plan


def _stage(number: int, fields: dict[str, Any]) -> stages.Stage:
    try:
        return stages.Stage(**fields)
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in dataclasses.fields(stages.Stage))
        raise ValueError(f"config.stages, stage {number}: {error} (fields: {known})") from None


def _phase(
    config: ConfigDict,
    stage: stages.Stage,
    start: int,
    end: int,
    per_epoch: float,
    trained: frozenset[stages.Path] | None,
    frozen: tuple[stages.Path, ...],
    factors: dict[stages.Path, float] | None,
) -> stages.Phase:
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
    """The weights that `config.init.weights` or `config.init_from` names, None for none.

    The weights of a run keep to what they were trained with: the mean and std of their input, and the
    conventions of their layers. The input's size and interpolation are the config's, so that a run may go on
    at another size.

    Returns:
      As `weights.find`; for weights of a run the facts are "conventions", "preprocess", "missing" (nothing)
      and "run", that run's own.

    Raises:
      As `weights.find` and `Trained`.
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
    network, normalized = trained.facts["model"], trained.facts["preprocess"]
    if network["name"] != config.model.name:
        raise ValueError(
            f"config.init_from is {config.init_from!r}, weights of {network['name']}, and config.model.name "
            f"is {config.model.name}"
        )
    for name, default in (("mean", official.MEAN), ("std", official.STD)):
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
        "run": trained.facts,
    }
    return Pretrained(trained.variables, facts)


def preprocess(config: ConfigDict, facts: dict[str, Any] | None) -> dict[str, Any]:
    """How the network's input is made: arguments of `steps.make_forward` besides the size.

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

    def faces(size):
        return jax.ShapeDtypeStruct((1, size, size, config.channels), np.float32)

    attributes = {"dtype": config.dtype} | _attributes(config, conventions)
    try:
        network = models.create(config.name, num_classes, **attributes)
        variables = jax.eval_shape(network.init, jax.random.key(0), faces(config.input_size))
    except ValueError as error:
        raise ValueError(f"config.model: {error}") from error
    for _, size in sizes:
        try:
            jax.eval_shape(network.apply, variables, faces(size))
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


def teachers(config: ConfigDict) -> list[Trained]:
    """The networks in `config.distill.teachers`.

    Raises:
      As `Trained`.
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
    channels = builder.read_manifest(config.data.dir)["channels"]
    for teacher in found:
        if teacher.facts["emotions"] != names:
            raise ValueError(
                f"config.distill.teachers: {teacher.source} tells {teacher.facts['emotions']} apart and the "
                f"student {names}: config.data.num_classes says how many the student does"
            )
        if channels not in (1, teacher.input_shape[-1]):
            raise ValueError(
                f"config.distill.teachers: {teacher.source} takes {teacher.input_shape[-1]} channel (grey), "
                f"and the faces of {config.data.dir} have {channels} (colour)"
            )
    return found


def _trained(name: str, source: str) -> Trained:
    """The network that a value of a field names."""
    path = _find_weights(name, source)
    try:
        return Trained(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.{name}: {error}") from error
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"config.{name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"config.{name}: {error}") from error


def _find_weights(name: str, source: str) -> str:
    try:
        return find_weights(str(source))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.{name}: {error}") from error


def distillation(config: ConfigDict, networks: Sequence[Trained]) -> Distillation | None:
    """What `networks` teach, as `config.distill` says; None without any."""
    if not networks:
        return None
    kept = config.distill.weight, config.distill.temperature
    return Distillation(networks, *kept, fill=config.augment.fill, dtype=config.model.dtype)


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
        "data": builder.describe(manifest),
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
