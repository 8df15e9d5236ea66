"""Validates a config before work starts: its values, the network, and files."""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax import models
from fer_jax.data import augment, exclude_list, ferplus
from fer_jax.data.dataset import read
from fer_jax.data.faces import Faces
from fer_jax.data.sources.record import SPLITS
from fer_jax.pretrained import sources
from fer_jax.pretrained.key_map import ECOSYSTEMS
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.training import (
    build,
    distillation,
    initial_weights,
    losses,
    optim,
    sharding,
    stages,
    training_data,
)
from fer_jax.training.run_dir import flatten

# Choices of fields, from the modules that implement them.
_CHOICES = {
    "parallel": sharding.MODES,
    "data.labels": (ferplus.GIVEN, *ferplus.RULES),
    "model.name": models.MODELS,
    "model.interpolation": augment.INTERPOLATIONS,
    "model.dtype": ("float32", "bfloat16"),
    "loss.class_weights": ("none", "balanced"),
    "loss.normalization": losses.NORMALIZATIONS,
    "optim.name": optim.OPTIMIZERS,
    "optim.schedule": optim.SCHEDULES,
    "selection.split": SPLITS,
    "selection.metric": build.SELECTION_METRICS,
    "checkpoint.dtype": ("float32", "float16"),
    "distill.views": distillation.VIEWS,
}
# Ranges of numbers, also in tuples; for attributes of a model, if set.
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


@dataclasses.dataclass(frozen=True)
class Plan:
    """A validated config, with the files that it names."""

    config: ConfigDict  # from `configs/default.py` or an experiment
    manifest: dict[str, Any]  # of the dataset
    augmentation: augment.Ranges
    stage_configs: Sequence[stages.StageConfig]  # [] for a single stage
    excluded: exclude_list.ExcludeList | None  # by `config.data.drop_ids`, None without such a file
    teachers: Sequence[LoadedModel]

    @functools.cached_property
    def splits(self) -> dict[str, Faces]:
        """Returns the training and selection splits, labeled but not cleaned; loads them on first access."""
        names = dict.fromkeys(("train", self.config.selection.split))
        return {name: training_data.load_split(self.config, name) for name in names}

    @property
    def identity(self) -> dict[str, Any]:
        """Returns the identity of a run, for `run_dir.check_identity`.

        It consists of config fields by dotted name as JSON types, the hashes of the training and selection
        splits, "drop_ids_hash" (None without such a file), and "teachers", the digests of their weights.
        """
        # Other splits may change, for example when a test split is added for the final evaluation.
        used = {s: self.manifest["splits"].get(s, {}) for s in ("train", self.config.selection.split)}
        return {
            **{f"{split}_hash": of.get("order_hash") for split, of in used.items()},
            **flatten(json.loads(self.config.to_json_best_effort())),
            "drop_ids_hash": self.excluded and self.excluded.digest,
            "teachers": [teacher.digest for teacher in self.teachers],
        }


def validate(config: ConfigDict) -> Plan:
    """Validates a config and reads the files that it names.

    Raises:
      ValueError, FileNotFoundError: as `check`, `read.read_manifest`, `training_data.read_excluded`, and
        `initial_weights.teachers`.
      DamagedCheckpointError: a teacher cannot be read.
    """
    ranges, stage_configs = check(config)
    manifest = read.read_manifest(config.data.dir)
    excluded = training_data.read_excluded(config)
    teachers = initial_weights.teachers(config, manifest)
    return Plan(config, manifest, ranges, stage_configs, excluded, teachers)


def field(config: ConfigDict, name: str) -> Any:
    """Returns a field by its dotted name.

    Raises:
      AttributeError: the field does not exist.
    """
    return functools.reduce(getattr, name.split("."), config)


def check(config: ConfigDict) -> tuple[augment.Ranges, list[stages.StageConfig]]:
    """Validates the values of a config, without reading files.

    Returns:
      The augmentation and the stages of the config.

    Raises:
      ValueError: a value is invalid; the message names the field, the value, and the expected value.
    """
    _check_values(config)
    _check_orders(config)
    ranges, stage_configs = build.augmentation(config.augment), build.stage_configs(config)
    _check_pairs(config, ranges, stage_configs)
    _check_warmup(config, stage_configs)
    return ranges, stage_configs


def _check_values(config: ConfigDict) -> None:
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
            "config.selection.split is 'test', which is only for the final evaluation: select on validation"
        )


def _check_orders(config: ConfigDict) -> None:
    for name in ("optim.boundary_epochs", "optim.boundary_steps"):
        if not _grow(field(config, name) or ()):
            raise ValueError(f"config.{name} is {field(config, name)}; expected increasing numbers above 0")
    pairs: list[Any] = [pair if isinstance(pair, tuple | list) else (pair,) for pair in config.train.sizes]
    if (
        any(len(pair) != 2 for pair in pairs)
        or not _grow([share for share, _ in pairs])
        or any(share > 1 or size < 1 for share, size in pairs)
    ):
        raise ValueError(
            f"config.train.sizes is {config.train.sizes}; expected ((share of the steps, size), ...) with "
            "increasing shares, above 0 and at most 1, and sizes above 0"
        )


def _grow(values: Sequence[float]) -> bool:
    """Returns whether values are positive and increasing."""
    return all(low < high for low, high in itertools.pairwise((0, *values)))


def _check_pairs(
    config: ConfigDict, ranges: augment.Ranges, stage_configs: Sequence[stages.StageConfig]
) -> None:
    if config.data.num_classes == 8 and config.data.labels == ferplus.GIVEN:
        raise ValueError(
            "config.data.num_classes=8 needs labels with contempt: set config.data.labels to one of "
            f"{', '.join(ferplus.RULES)}"
        )
    corrections = {
        "loss.class_weights": config.loss.class_weights != "none",
        "loss.logit_adjustment": config.loss.logit_adjustment > 0,
        "data.balanced_sampling": config.data.balanced_sampling > 0,
    }
    if sum(corrections.values()) > 1:
        names = " and ".join(f"config.{name}" for name, on in corrections.items() if on)
        raise ValueError(
            f"{names} are set: each corrects for class imbalance, and together they would overcorrect; "
            "choose one"
        )
    if config.distill.teachers and config.loss.logit_adjustment:
        raise ValueError(
            "config.loss.logit_adjustment and config.distill.teachers are set: labels and teachers would "
            "imply different logits; choose one"
        )
    if config.distill.views == "plain" and config.distill.temperature != 1:
        raise ValueError(
            f"config.distill.temperature is {config.distill.temperature}; expected 1 with "
            "config.distill.views='plain', where predictions are part of the targets"
        )
    if config.init_from and config.init.weights != "none":
        raise ValueError(
            f"config.init_from is {config.init_from!r} and config.init.weights is {config.init.weights!r}: "
            "choose one"
        )
    if ranges.mixes and config.train.batch_size % 2:
        raise ValueError(
            f"config.train.batch_size is {config.train.batch_size}; expected an even number, because mixup "
            "and cutmix (config.augment) pair faces"
        )
    if config.selection.patience and len(stage_configs) > 1:
        raise ValueError(
            f"config.selection.patience is {config.selection.patience} with {len(stage_configs)} stages: "
            "early stopping would skip later stages; set it to 0, or use a single stage"
        )


def _check_warmup(config: ConfigDict, stage_configs: Sequence[stages.StageConfig]) -> None:
    """Compares the warm-up with the length of the run, if both are in the same unit."""
    given, unit = config.optim.warmup_steps, "steps"
    whole = None if stage_configs else config.train.steps
    if given is None:
        given, unit = config.optim.warmup_epochs, "epochs"
        whole = None if config.train.steps else config.train.epochs
        whole = min((stage.epochs for stage in stage_configs), default=whole)
    if given and whole and given >= whole:
        what = "the shortest stage (each has a warm-up)" if stage_configs else "the run"
        raise ValueError(
            f"config.optim.warmup_{unit} is {given}; expected fewer than the {whole} {unit} of {what}"
        )


def dry_run(configs: Iterable[ConfigDict]) -> None:
    """Validates several configs with their networks and files, before the first run.

    Builds shared parts once, and neither creates nor downloads weights.

    Raises:
      As `check`, `training_data.read_excluded`, `initial_weights.pretrained`, and as `build.model` and
        `build.make_stages` but for what depends on the data.
      FileNotFoundError: a teacher does not exist.
    """
    done = set()
    for config in configs:
        _, stage_configs = check(config)
        fields = ("init_from", "init", "data.drop_ids", "data.num_classes", "distill.teachers", "model")
        fields += ("optim.layer_decay", "train.sizes", "stages")
        parts = repr([field(config, name) for name in fields])
        if parts not in done:
            _dry_run(config, stage_configs)
            done.add(parts)


def _dry_run(config: ConfigDict, stage_configs: Sequence[stages.StageConfig]) -> None:
    training_data.read_excluded(config)
    for teacher in config.distill.teachers:
        initial_weights.find_source("distill.teachers", teacher)
    start = None
    if config.init.weights in ECOSYSTEMS:
        sources.find(config.model.name, config.init.weights)
    else:
        start = initial_weights.pretrained(config)
    conventions = start and start.metadata["conventions"]
    network = build.model(config.model, config.data.num_classes, config.train.sizes, conventions)
    if config.init_from and start:
        side = config.model.input_size
        try:
            models.check_fit(start.variables, network, (side, side, config.model.channels))
        except ValueError as error:
            raise ValueError(f"config.init_from is {config.init_from!r}: {error}") from error
    build.layers_of_stages(config, network, stage_configs, start and start.metadata)
